"""What a gate sees and says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llava.expansion.recipe.kinds import KindRecipe
from llava.expansion.sources.corpus import AnnotatedImage


@dataclass(frozen=True, slots=True)
class Sample:
    """One reply about one image; `pairs` is empty where the reply could not be parsed.

    For `answer` grammars the pair's question is empty: it is ours, not the teacher's.
    """

    kind: KindRecipe
    image: AnnotatedImage
    reply: str
    finish_reason: str
    pairs: Sequence[tuple[str, str]]
    problem: str = ""

    @property
    def answers(self) -> str:
        """All answers, a line each."""
        return "\n".join(answer for _, answer in self.pairs)

    @property
    def text(self) -> str:
        """All questions and answers, a line each; the raw reply where it could not be parsed."""
        if not self.pairs:
            return self.reply
        return "\n".join(part for pair in self.pairs for part in pair if part)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a gate held against a sample; a hard one drops it, a soft one is noted."""

    gate: str
    reason: str
    hard: bool = True


class Gate(Protocol):
    """One check. Gates with memory (duplicates, balance) see samples in the run's fixed order."""

    name: str

    def check(self, sample: Sample) -> str:
        """Why the sample is bad, or an empty text."""
        ...
