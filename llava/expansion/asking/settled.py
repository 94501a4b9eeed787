"""What the ledger's texts mean under today's rules.

Statuses in the ledger say what was decided when a reply came. Whoever changes a parsing rule, a turn limit or a gate
gets the texts judged again, for nothing and in both directions: a reply that was refused then may be used now, and one
that was good then may be dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from llava.expansion.asking.entries import Entry
from llava.expansion.asking.ledger import Ledger
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.base import Reply

Unusable = Callable[[str, Reply], str]
"""(kind, reply) -> why the reply cannot be used, as `gate: reason`; an empty text for one that can."""


def settle(ledger: Ledger, request: Request, unusable: Unusable) -> tuple[Entry | None, str]:
    """The first reply that can be used, with an empty text; else the last word on the request and what is wrong with
    it; None where nothing was ever said."""
    last: Entry | None = None
    for entry in ledger.replies(request.id):
        why = problem(request, entry, unusable)
        if not why:
            return entry, ""
        last = entry
    return (last, problem(request, last, unusable)) if last is not None else (None, "")


def problem(request: Request, entry: Entry, unusable: Unusable) -> str:
    """What is wrong with one reply under today's rules."""
    if not entry.text and entry.status == "dropped":
        return entry.reason  # the teacher's own refusal: there is no text to judge again
    return unusable(request.kind, Reply(entry.text, entry.finish_reason, entry.model, entry.usage))


def still_open(requests: Iterable[Request], ledger: Ledger, unusable: Unusable) -> Iterator[Request]:
    """The requests for which something is still to be asked."""
    for request in requests:
        if request.id in ledger:
            continue
        if ledger.repairs(request.id) and not settle(ledger, request, unusable)[1]:
            continue
        yield request
