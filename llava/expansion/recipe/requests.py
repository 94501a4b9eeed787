"""Requests to a teacher, and the ids that make spending repeatable.

An id is a hash over what is sent and over nothing else: the same body has the same id in every run, online or in a
batch file, so nothing is asked or paid for twice. An image stands in it by the hash of its file. Parsing rules, turn
limits and gates are no part of it. Bodies that are equal, such as two images with one caption, are told apart by a
count: the second is a second draw.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llava.expansion.recipe.attaching import Attached, Attacher
from llava.expansion.recipe.kinds import KindRecipe, Sampling
from llava.expansion.sources.corpus import AnnotatedImage

REPAIR_NOTE = "\n\n(Write the reply again, complete and in exactly the form of the examples above.)"


@dataclass(frozen=True, slots=True)
class Request:
    """One chat completion to ask for.

    Attributes:
        id: 32 hex digits, `custom_id` in batch files.
        prefix: messages shared by all requests of the kind (system, few-shot pairs).
        context: the image as text, the last user message.
        fields: the rest of the body as it is sent: sampling, output limit, whatever `extra_body` adds.
        limit_name: which of `fields` limits the output; empty: none does.
        max_tokens: that limit; None without one.
        attached: the image itself, for a teacher that sees; it is read when the body is made.
    """

    id: str
    kind: str
    image: AnnotatedImage
    prefix: list[dict[str, str]]
    context: str
    model: str
    fields: Mapping[str, Any]
    limit_name: str
    max_tokens: int | None
    attached: Attached | None = None

    def body(self) -> dict[str, Any]:
        """The body of `POST /chat/completions`; the one place where it is put together.

        Raises:
            DataError, StorageError: the image cannot be read, or is another one by now.
        """
        return {"model": self.model, "messages": self.messages(), **self.fields}

    def text_body(self) -> dict[str, Any]:
        """The body without the image."""
        return replace(self, attached=None).body()

    def messages(self) -> list[dict[str, Any]]:
        """Prefix and the user's turn, in which the image stands before the text."""
        if self.attached is None:
            return [*self.prefix, {"role": "user", "content": self.context}]
        parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": self.attached.url()}}]
        if self.context:
            parts.append({"type": "text", "text": self.context})
        return [*self.prefix, {"role": "user", "content": parts}]

    def repaired(self) -> Request:
        """The request after an unusable reply: a note at its end (the prefix stays cached), and twice the room."""
        if self.max_tokens is None:
            return replace(self, context=self.context + REPAIR_NOTE)
        room = self.max_tokens * 2
        return replace(
            self, context=self.context + REPAIR_NOTE, max_tokens=room, fields={**self.fields, self.limit_name: room}
        )


class RequestMaker:
    """Makes the requests that share everything but the image.

    Args:
        prefix: messages before the user's turn.
        model: as the endpoint names it.
        sampling: the recipe's parameters.
        extra_body: overrides the recipe's.
        draws: equal requests are draws of their own; False: they are one.
    """

    def __init__(
        self,
        kind: str,
        prefix: list[dict[str, str]],
        model: str,
        sampling: Sampling,
        extra_body: Mapping[str, Any] | None = None,
        *,
        draws: bool = True,
    ) -> None:
        self._draws = draws
        self._kind, self._prefix, self._model = kind, prefix, model
        self._fields, self._limit_name, self._limit = sampling.fields(extra_body)
        shared = json.dumps([model, prefix, self._fields], sort_keys=True, ensure_ascii=False)
        self._digest = hashlib.sha256(shared.encode())
        self._seen: Counter[int] = Counter()

    def request(self, image: AnnotatedImage, context: str, attached: Attached | None = None) -> Request:
        """The request about one image; equal ones are counted in the order of asking."""
        digest = self._digest.copy()
        digest.update(context.encode())
        if attached is not None:
            digest.update(f"\nimage {attached.key()}".encode())
        if self._draws:
            key = int.from_bytes(digest.digest()[:8], "big")
            self._seen[key] += 1
            if self._seen[key] > 1:
                digest.update(f"\n{self._seen[key]}".encode())
        return Request(
            digest.hexdigest()[:32], self._kind, image, self._prefix, context, self._model,
            self._fields, self._limit_name, self._limit, attached,
        )  # fmt: skip


def requests_of(
    kind: KindRecipe,
    model: str,
    images: Iterable[AnnotatedImage],
    seed: int,
    extra_body: Mapping[str, Any] | None = None,
    attacher: Attacher | None = None,
) -> Iterator[Request]:
    """The requests of one kind in the images' order; deterministic.

    Args:
        attacher: for kinds that show the image; an image that it does not have is left out.
    """
    maker = RequestMaker(kind.name, kind.prefix(), model, kind.sampling, extra_body)
    threshold = int(kind.share * 2**64)
    for image in images:
        if not kind.context.usable(image):
            continue
        if kind.share < 1.0 and _lot(f"{seed}:{kind.name}:{image.path}") >= threshold:
            continue
        attached = attacher.attach(image) if attacher is not None and kind.context.sees else None
        if attached is None and kind.context.sees:
            continue
        yield maker.request(image, kind.context.render(image), attached)


def all_requests(
    kinds: Sequence[KindRecipe],
    model: str,
    images: Iterable[AnnotatedImage],
    seed: int,
    extra_body: Mapping[str, Any] | None = None,
    attacher: Attacher | None = None,
) -> Iterator[Request]:
    """Kind after kind, so that a provider's prompt cache stays warm; `images` is iterated once per kind."""
    for kind in kinds:
        yield from requests_of(kind, model, images, seed, extra_body, attacher)


def _lot(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
