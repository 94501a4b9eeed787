"""The budget: no request is sent that could carry the ledger's cost above it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from llava.expansion.asking.prices import Price
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.base import Usage

# Before any reply has said how many tokens our bytes are: English is near 0.25, numbers near 0.5.
_TOKENS_PER_BYTE = 0.5


class Budget:
    """Real cost so far, the worst case of what is in flight, and a ceiling on their sum.

    Args:
        price: of the teacher's model.
        most: ceiling in the table's currency; 0: none.
        spent: what the ledger already holds.
    """

    def __init__(self, price: Price, most: float, spent: float) -> None:
        self.price = price
        self.most = most
        self.spent = spent
        self._reserved: dict[str, float] = {}
        self._ratio = 0.0
        self._prefix_bytes: dict[str, int] = {}

    def input_tokens(self, request: Request) -> float:
        """Likely input tokens, from the largest token-to-byte ratio the server has reported."""
        return self._bytes(request) * (self._ratio or _TOKENS_PER_BYTE)

    def reserve(self, request: Request) -> bool:
        """Set aside the worst case of a request; False when it could exceed the ceiling."""
        if not self.most:
            return True
        # A tenth on top of the ratio seen: other texts tokenise differently.
        worst = self.price.of(Usage(int(1.1 * self.input_tokens(request)) + 1, 0, request.max_tokens))
        if self.spent + sum(self._reserved.values()) + worst > self.most:
            return False
        self._reserved[request.id] = worst
        return True

    @property
    def in_flight(self) -> bool:
        """True while reservations are open."""
        return bool(self._reserved)

    def release(self, request: Request) -> None:
        """The request brought no reply."""
        self._reserved.pop(request.id, None)

    def settle(self, request: Request, usage: Usage) -> float:
        """Replace the reservation by the real cost, and return that; a server that reports no usage is charged for
        at the estimate."""
        self._reserved.pop(request.id, None)
        if usage.input:
            self._ratio = max(self._ratio, usage.input / max(self._bytes(request), 1))
        else:
            usage = Usage(int(self.input_tokens(request)), 0, request.max_tokens)
        cost = self.price.of(usage)
        self.spent += cost
        return cost

    def _bytes(self, request: Request) -> int:
        prefix = self._prefix_bytes.get(request.kind)
        if prefix is None:
            prefix = self._prefix_bytes[request.kind] = message_bytes(request.prefix)
        return prefix + len(request.context.encode())


def message_bytes(messages: list[dict[str, str]] | list[Mapping[str, str]]) -> int:
    """UTF-8 bytes of messages as the server receives them."""
    return sum(len(json.dumps(message, ensure_ascii=False).encode()) for message in messages)
