"""What an engine is: requests in, answers out as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image


@dataclass(frozen=True)
class Asked:
    """What the user says, and the images that are shown before it."""

    text: str
    images: Sequence[Image.Image]


@dataclass(frozen=True)
class Refusal:
    """An engine will never answer this request; `reason` says why, in the engine's words."""

    reason: str


class Engine(Protocol):
    """Answers greedily.

    Attributes:
        title: for people, e.g. "own generator, bfloat16".
        identity: what besides the model's weights decides an answer; part of every answer's fingerprint.
        batched: whether answers may depend on the batch in half precision, for the statement in the report.
        chunk: how many requests it wants at once.
        blank_colour: the colour that means nothing to the model (zero after normalisation).
    """

    title: str
    identity: str
    batched: bool
    chunk: int
    blank_colour: tuple[int, int, int]

    def answers(self, requests: Sequence[Asked], max_new_tokens: int) -> Iterator[dict[int, str | Refusal]]:
        """Some answers at a time, by position in `requests`; every request once.

        Raises:
            UserError: it cannot go on; what was yielded stands.
        """
