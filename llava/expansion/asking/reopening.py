"""Asking again for what was dropped."""

from __future__ import annotations

from collections.abc import Iterable

from llava.expansion.asking.entries import Entry
from llava.expansion.asking.ledger import Ledger
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.base import Usage

_COMMIT = 1000


def reopen(requests: Iterable[Request], ledger: Ledger) -> int:
    """Make requests count as never asked, but for what they cost; returns their number.

    The mark stands in the ledger, so that a run that is killed meanwhile resumes with what is left.
    """
    ids = [(request.id, request.model, request.kind) for request in requests]  # read to the end before anything changes
    for start in range(0, len(ids), _COMMIT):
        ledger.append(
            [
                Entry(name, ledger.attempts(name) + 1, "reopened", "", "", "", model, Usage(), 0.0, kind)
                for name, model, kind in ids[start : start + _COMMIT]
            ]
        )
    return len(ids)
