"""Ask a teacher for everything that is missing, as fast as it allows, and write every reply to the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llava.expansion.ledger import Entry, Ledger
from llava.expansion.requests import Request
from llava.expansion.teachers.base import Teacher

Judge = Callable[[Request, str, str], str]
"""(request, text, finish_reason) -> why the reply is unusable, or an empty text."""


@dataclass
class Outcome:
    """What one dispatch did."""

    asked: int = 0
    answered: int = 0
    dropped: int = 0
    unasked: int = 0
    stopped: str = ""


async def dispatch(requests: Iterator[Request], teacher: Teacher, ledger: Ledger, concurrency: int) -> Outcome:
    """Ask for every request without a final entry."""
    outcome = Outcome()
    batch: list[Entry] = []
    for request in requests:
        if request.id in ledger:
            continue
        reply = await teacher.ask(request)
        outcome.asked += 1
        outcome.answered += 1
        batch.append(
            Entry(
                request.id,
                ledger.attempts(request.id) + 1,
                "answered",
                "",
                reply.text,
                reply.finish_reason,
                reply.model,
                reply.usage,
                0.0,
                request.kind,
            )
        )
        if len(batch) >= 256:
            ledger.append(batch)
            batch = []
    ledger.append(batch)
    return outcome
