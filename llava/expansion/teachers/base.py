"""The contract between the expansion and whoever answers its requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from llava.expansion.recipe.requests import Request

MOST_TOKENS = 10_000_000
"""More tokens than this in one reply's usage are no usage but a fault."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one reply as the teacher counted them.

    Attributes:
        input: all input tokens, however they are priced.
        cached_input: the part of `input` that was read from the provider's cache.
        output: reasoning included.
        cache_write: the part of `input` that was written to the provider's cache, where it says so.
    """

    input: int = 0
    cached_input: int = 0
    output: int = 0
    cache_write: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """One answered request.

    Attributes:
        finish_reason: `stop`, `length` (cut off, never usable), `content_filter`, or what the server said.
        model: the teacher as it named itself.
        oversized: it was longer than any honest reply and was cut.
    """

    text: str
    finish_reason: str
    model: str
    usage: Usage = field(default_factory=Usage)
    oversized: bool = False


class Teacher(Protocol):
    """Answers requests; raises `failures.TeacherFailure` where it cannot."""

    @property
    def model(self) -> str:
        """Name that is part of every request's id."""
        ...

    async def ask(self, request: Request) -> Reply: ...

    async def renew(self) -> None:
        """Drop open connections: one of them may have given another request's reply."""
        ...

    async def close(self) -> None: ...


def token_count(value: Any) -> int | None:
    """A count as a server reports it; None for what is no count (text, NaN, negative, absurd)."""
    if value is None:
        return 0
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        return None
    return value
