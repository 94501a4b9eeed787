"""Requests to a teacher, and the ids that make spending repeatable.

An id is a hash over recipe, image, context, teacher and parameters: the same work has the same id in every run,
online or in a batch file, so nothing is asked or paid for twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llava.expansion.recipe.kinds import KindRecipe
from llava.expansion.sources.corpus import AnnotatedImage


@dataclass(frozen=True, slots=True)
class Request:
    """One chat completion to ask for.

    Attributes:
        id: 32 hex digits, `custom_id` in batch files.
        prefix: messages shared by all requests of the kind (system, few-shot pairs).
        context: the image as text, the last user message.
    """

    id: str
    kind: str
    image: AnnotatedImage
    prefix: list[dict[str, str]]
    context: str
    model: str
    temperature: float
    top_p: float
    max_tokens: int
    limit_name: str = "max_tokens"

    def body(self) -> dict[str, Any]:
        """The body of `POST /chat/completions`."""
        return {
            "model": self.model,
            "messages": [*self.prefix, {"role": "user", "content": self.context}],
            "temperature": self.temperature,
            "top_p": self.top_p,
            self.limit_name: self.max_tokens,
        }


def requests_of(kind: KindRecipe, model: str, images: Iterable[AnnotatedImage], seed: int) -> Iterator[Request]:
    """The requests of one kind in the pictures' order; deterministic."""
    prefix, sampling = kind.prefix(), kind.sampling
    base = hashlib.sha256(f"{kind.fingerprint()}\n{model}\n".encode())
    threshold = int(kind.share * 2**64)
    for image in images:
        if not kind.context.usable(image):
            continue
        if kind.share < 1.0 and _lot(f"{seed}:{kind.name}:{image.path}") >= threshold:
            continue
        context = kind.context.render(image)
        digest = base.copy()
        digest.update(f"{image.path}\n{context}".encode())
        yield Request(
            digest.hexdigest()[:32], kind.name, image, prefix, context, model,
            sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.limit_name,
        )  # fmt: skip


def all_requests(
    kinds: Sequence[KindRecipe], model: str, images: Iterable[AnnotatedImage], seed: int
) -> Iterator[Request]:
    """Kind after kind, so that a provider's prompt cache stays warm; `images` is iterated once per kind."""
    for kind in kinds:
        yield from requests_of(kind, model, images, seed)


def _lot(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
