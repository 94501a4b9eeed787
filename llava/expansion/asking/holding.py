"""Holds: what a run has in flight is in the ledger before it is on the wire, so that a kill hides no money."""

from __future__ import annotations

import asyncio

from llava.expansion.asking.budget import Budget
from llava.expansion.asking.entries import Hold
from llava.expansion.asking.journal import Journal
from llava.expansion.asking.ledger import Ledger

_ROOM = 2.0  # the next hold is so many times what is in flight, so that few have to be written


class Holding:
    """Keeps the run's hold above what its budget has reserved."""

    def __init__(self, ledger: Ledger, budget: Budget, journal: Journal) -> None:
        self._ledger = ledger
        self._budget = budget
        self._journal = journal
        self._held = 0.0
        self._number = ledger.next_hold
        self._writing: asyncio.Task[None] | None = None

    async def cover(self) -> None:
        """Return when everything reserved is held durably."""
        if self._budget.reserved > self._held:
            self._set(self._budget.reserved * _ROOM)
        if self._writing is not None and not self._writing.done():
            await asyncio.shield(self._writing)

    async def fit(self) -> None:
        """Near the end of the budget: hold no more than is reserved, so that a kill does not seem to exceed it."""
        if (
            self._budget.most
            and self._held > self._budget.most - self._budget.spent
            and self._held > self._budget.reserved
        ):
            self._set(self._budget.reserved)
            assert self._writing is not None
            await asyncio.shield(self._writing)

    def close(self) -> None:
        """Nothing is in flight any more."""
        if self._held:
            self._ledger.append([Hold(self._ledger.run, self._number, 0.0)])

    def _set(self, amount: float) -> None:
        room = self._budget.most - self._budget.spent if self._budget.most else amount
        self._held = max(self._budget.reserved, min(amount, room))
        hold = Hold(self._ledger.run, self._number, self._held)
        self._number += 1
        self._writing = asyncio.create_task(self._journal.write(hold))
