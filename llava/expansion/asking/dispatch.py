"""Ask a teacher for everything that is missing, as fast as it allows, and write every reply to the ledger.

What may happen to a request, each bounded:
- retry: no reply, but there may be one later (429, 5xx, timeouts): the same request after a growing pause;
- repair: a reply that cannot be used (cut off, wrong form, refusal): paid for, recorded, asked again with a note;
- drop: this request can never be answered (content filter): recorded with the reason, never asked again;
- stop: no request can be answered (bad key, empty account), or the budget is used up, or the endpoint is down.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from llava.expansion.asking.budget import Budget
from llava.expansion.asking.journal import Journal
from llava.expansion.asking.ledger import Entry, Ledger, Status
from llava.expansion.asking.limits import Limits
from llava.expansion.asking.rate import AdaptiveGate, RateLimiter
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.base import Reply, Teacher, Usage
from llava.expansion.teachers.failures import TeacherFailure

_BUDGET_LOOK_S = 0.02
_REMOTE_LINGER_S = 0.5
REPAIR_NOTE = "\n\n(Write the reply again, complete and in exactly the form of the examples above.)"

Unusable = Callable[[Request, Reply], str]
"""Why a reply cannot be used, or an empty text."""


@dataclass
class Outcome:
    """What one dispatch did.

    Attributes:
        failed: requests given up after all retries; asked again in the next run, because the teacher may be back.
        stopped: why it ended early; empty when everything was asked.
        budget: it ended because of the budget.
    """

    replies: int = 0
    answered: int = 0
    dropped: int = 0
    failed: int = 0
    stopped: str = ""
    budget: bool = False
    faults: Counter[str] = field(default_factory=Counter)


class Dispatcher:
    """Asks one teacher; see the module.

    Args:
        unusable: decides which replies need repair.
        progress: called after every final outcome with the outcome so far.
    """

    def __init__(
        self,
        teacher: Teacher,
        ledger: Ledger,
        *,
        unusable: Unusable,
        budget: Budget,
        limiter: RateLimiter | None = None,
        limits: Limits | None = None,
        progress: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self._teacher = teacher
        self._ledger = ledger
        self._unusable = unusable
        self._budget = budget
        self._limits = limits or Limits()
        self._limiter = limiter or RateLimiter(0, 0)
        self._progress = progress
        self._gate = AdaptiveGate(8, self._limits.concurrency)
        self._since_success = 0
        self._first_drops = 0
        self._random = random.Random(0)  # only spreads retries in time
        self.outcome = Outcome()

    async def run(self, requests: Iterator[Request]) -> Outcome:
        """Ask for every request of the iterator without a final entry in the ledger."""
        missing = (request for request in requests if request.id not in self._ledger)
        linger, writers = _REMOTE_LINGER_S if self._ledger.remote else 0.0, self._limits.concurrency
        async with Journal(self._ledger, linger, writers) as journal:
            workers = [asyncio.create_task(self._work(missing, journal)) for _ in range(writers)]
            try:
                await asyncio.gather(*workers)
            except BaseException:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
                raise
        return self.outcome

    async def _work(self, missing: Iterator[Request], journal: Journal) -> None:
        while not self.outcome.stopped:
            request = next(missing, None)
            if request is None:
                return
            status = await self._pursue(request, journal)
            if status == "answered":
                self.outcome.answered += 1
            elif status == "dropped":
                self.outcome.dropped += 1
            elif status == "failed":
                self.outcome.failed += 1
            self._progress(self.outcome)

    async def _pursue(self, request: Request, journal: Journal) -> Literal["answered", "dropped", "failed", "left"]:
        """One request to its end."""
        retries = 0
        while not self.outcome.stopped:
            attempt = self._ledger.attempts(request.id) + 1
            try:
                reply = await self._send(repaired(request, attempt))
            except TeacherFailure as failure:
                if failure.action == "drop":
                    await journal.write(_dropped(request, attempt, f"teacher: {failure}"))
                    self._note_drop(str(failure))
                    return "dropped"
                retries += 1
                if failure.action == "retry" and retries > self._limits.retries:
                    return "failed"
                await self._after_failure(failure, retries)
                continue
            if reply is None:
                return "left"
            entry = self._entry(request, attempt, reply)
            await journal.write(entry)
            if entry.final:
                return "answered" if entry.status == "answered" else "dropped"
        return "left"

    async def _send(self, request: Request) -> Reply | None:
        """One request over the wire; None when the run was stopped before it went out."""
        tokens = self._budget.input_tokens(request) + request.max_tokens / 2
        await self._limiter.acquire(tokens)
        async with self._gate.slot() as generation:
            if self.outcome.stopped:
                return None
            while not self._budget.reserve(request):
                if self._budget.in_flight and not self.outcome.stopped:
                    # Replies under way will cost less than their worst case: wait for what they leave.
                    await asyncio.sleep(_BUDGET_LOOK_S)
                    continue
                self.outcome.budget = True
                self._stop(f"the next request could exceed the budget of {self._budget.most:g}")
                return None
            try:
                reply = await self._teacher.ask(request)
            except TeacherFailure as failure:
                self._budget.release(request)
                self.outcome.faults[str(failure)[:60]] += 1
                if failure.throttled:
                    self._gate.throttled(generation)
                raise
            self._gate.succeeded()
        self._since_success = 0
        self.outcome.replies += 1
        self._limiter.settle(tokens, reply.usage.input + reply.usage.output)
        return reply

    def _entry(self, request: Request, attempt: int, reply: Reply) -> Entry:
        cost = self._budget.settle(request, reply.usage)
        reason = self._unusable(request, reply)
        status: Status = "answered"
        if reason:
            status = "unusable" if attempt <= self._limits.repairs else "dropped"
        return Entry(
            request.id,
            attempt,
            status,
            reason,
            reply.text,
            reply.finish_reason,
            reply.model,
            reply.usage,
            cost,
            request.kind,
        )

    async def _after_failure(self, failure: TeacherFailure, retries: int) -> None:
        self._since_success += 1
        if failure.action == "stop":
            self._stop(f"the teacher refused: {failure}")
        elif self._since_success >= self._limits.consecutive_failures:
            self._stop(f"{self._since_success} failures in a row; the last: {failure}")
        elif failure.retry_after is not None and failure.retry_after > self._limits.longest_retry_after:
            self._stop(f"the teacher asks for a pause of {failure.retry_after:.0f} s: {failure}")
        elif failure.retry_after is not None:
            self._limiter.pause(failure.retry_after)
        else:
            pause = min(self._limits.first_pause * 2 ** (retries - 1), self._limits.longest_pause)
            await asyncio.sleep(pause * (0.5 + self._random.random() / 2))

    def _note_drop(self, reason: str) -> None:
        # One bad request is its own fault; if none was ever answered, the settings are at fault.
        if not self.outcome.replies:
            self._first_drops += 1
            if self._first_drops >= 10:
                self._stop(f"the teacher rejects every request: {reason}")

    def _stop(self, why: str) -> None:
        self.outcome.stopped = self.outcome.stopped or why


def repaired(request: Request, attempt: int) -> Request:
    """The request of a later attempt: a note at its end (the prefix stays cached), and room for a longer reply."""
    if attempt == 1:
        return request
    return replace(request, context=request.context + REPAIR_NOTE, max_tokens=request.max_tokens * 2)


def _dropped(request: Request, attempt: int, reason: str) -> Entry:
    return Entry(request.id, attempt, "dropped", reason, "", "", request.model, Usage(), 0.0, request.kind)
