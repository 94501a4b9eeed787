"""The contract between the expansion and whoever answers its requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from llava.expansion.recipe.requests import Request


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one reply as the teacher counted them; `cached_input` is the part of `input` read from its cache."""

    input: int = 0
    cached_input: int = 0
    output: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """One answered request.

    Attributes:
        finish_reason: `stop`, `length` (cut off, never usable), `content_filter`, or what the server said.
        model: the teacher as it named itself.
    """

    text: str
    finish_reason: str
    model: str
    usage: Usage = field(default_factory=Usage)


class Teacher(Protocol):
    """Answers requests; raises `failures.TeacherFailure` where it cannot."""

    @property
    def model(self) -> str:
        """Name that is part of every request's id."""
        ...

    async def ask(self, request: Request) -> Reply: ...

    async def close(self) -> None: ...
