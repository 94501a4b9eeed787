"""The budget: no request is sent that could carry the sum of everything the provider may charge above it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llava.expansion.asking.prices import ImageTokens, Price
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.base import Usage

# Before any reply has said how many tokens our bytes are. English is near 0.25 and rows of numbers near 0.6; no
# tokenizer makes more tokens than bytes.
_TOKENS_PER_BYTE = 1.0
_LIKELY_TOKENS_PER_BYTE = 0.4
# A model whose table line does not say how it counts images: a token each 28 pixels square is on the large side.
_LIKELY_IMAGE = ImageTokens(size=28, base=4)
_SLACK = 1.1  # on top of the largest ratio seen: other texts tokenise differently
_ABSURD = 4  # times more input tokens than bytes, or output tokens than were allowed


class Budget:
    """Cost so far, the worst case of what is in flight, and a ceiling on their sum.

    Args:
        price: of the teacher's model.
        most: ceiling in the table's currency; 0: none.
        spent: what the ledger already holds, possibly billed or surely.
        batch: prices of the batch interface.
    """

    def __init__(self, price: Price, most: float, spent: float, *, batch: bool = False) -> None:
        self.price = price
        self.most = most
        self.spent = spent
        self._batch = batch
        self._reserved: dict[str, float] = {}
        self._sum = 0.0
        self._ratio = 0.0
        self._prefix_bytes: dict[str, int] = {}

    def input_tokens(self, request: Request) -> float:
        """Likely input tokens, from the largest token-to-byte ratio the server has reported."""
        return self._bytes(request) * (self._ratio or _LIKELY_TOKENS_PER_BYTE) + image_tokens(self.price, request)

    def worst(self, request: Request) -> float:
        """The most that a request can cost."""
        ratio = self._ratio
        if ratio and request.attached is not None:
            # What the image took is not told apart in a usage: where our rule takes it for too much, the text would
            # seem to have taken too little.
            ratio = max(ratio, _LIKELY_TOKENS_PER_BYTE)
        tokens = self._bytes(request) * (ratio * _SLACK or _TOKENS_PER_BYTE)
        tokens += image_tokens(self.price, request) * _SLACK
        return self.price.worst(int(tokens) + 1, request.max_tokens or 0, batch=self._batch)

    def reserve(self, request: Request) -> bool:
        """Set aside the worst case of a request; False when it could exceed the ceiling."""
        if self.price.free:
            return True
        worst = self.worst(request)
        if self.most and self.spent + self._sum + worst > self.most:
            return False
        self._reserved[request.id] = worst
        self._sum += worst
        return True

    @property
    def reserved(self) -> float:
        """Worst case of everything in flight."""
        return self._sum

    @property
    def in_flight(self) -> bool:
        """True while reservations are open."""
        return bool(self._reserved)

    def release(self, request: Request) -> None:
        """The request brought no reply, and cannot have cost anything."""
        self._sum -= self._reserved.pop(request.id, 0.0)
        if not self._reserved:
            self._sum = 0.0  # no rounding is carried on

    def settle(self, request: Request, usage: Usage) -> float:
        """Replace the reservation by the real cost, and return that; without usage, or with one that cannot be, the
        worst case is charged."""
        worst = self._reserved.get(request.id)
        if worst is None:
            worst = self.worst(request)
        if usage.input and not self.absurd(request, usage):
            text = usage.input - image_tokens(self.price, request)
            self._ratio = max(self._ratio, text / max(self._bytes(request), 1))
            cost = self.price.of(usage, batch=self._batch)
        else:
            cost = worst
        self.release(request)
        self.spent += cost
        return cost

    def absurd(self, request: Request, usage: Usage) -> bool:
        """True for a usage that no server can have measured for this request."""
        much = _ABSURD * (self._bytes(request) + image_tokens(self.price, request)) + 1000
        many = _ABSURD * request.max_tokens + 1000 if request.max_tokens else usage.output
        return usage.input > much or usage.output > many or usage.cached_input + usage.cache_write > usage.input

    def _bytes(self, request: Request) -> int:
        prefix = self._prefix_bytes.get(request.kind)
        if prefix is None:
            prefix = self._prefix_bytes[request.kind] = message_bytes(request.prefix)
        return prefix + len(request.context.encode())


def image_tokens(price: Price, request: Request) -> int:
    """Input tokens of a request's image by the model's published rule, or by a stated guess; 0 without an image."""
    if request.attached is None:
        return 0
    return (price.image or _LIKELY_IMAGE).count(*request.attached.size)


def message_bytes(messages: list[dict[str, Any]] | list[Mapping[str, Any]]) -> int:
    """UTF-8 bytes of messages as the server receives them."""
    return sum(len(json.dumps(message, ensure_ascii=False).encode()) for message in messages)
