"""Ask a teacher for everything that is missing, as fast as it allows, and write every reply to the ledger.

What may happen to a request, each bounded:
- retry: no reply, but there may be one later (429, 5xx, timeouts): the same request after a growing pause. Where the
  provider may charge for what brought no reply, that is booked before anything else is sent;
- repair: a reply that cannot be used (cut off, wrong form, refusal): paid for, recorded, asked again with a note;
- drop: this request can never be answered (content filter): recorded with the reason, never asked again;
- refusal of another sort (403, 400): that request's drop once others succeed; the run's end if none does;
- stop: no request can be answered (bad key, empty account), or the budget is used up, the endpoint is down, or most
  replies cannot be used.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from llava.expansion.asking.budget import Budget
from llava.expansion.asking.canary import Canary
from llava.expansion.asking.entries import Entry, Status
from llava.expansion.asking.holding import Holding
from llava.expansion.asking.journal import Journal
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.limits import Limits
from llava.expansion.asking.plausible import Plausible
from llava.expansion.asking.rate import AdaptiveGate, RateLimiter
from llava.expansion.asking.settled import Unusable, still_open
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.base import Reply, Teacher, Usage
from llava.expansion.teachers.failures import TeacherFailure
from llava.retrying import Pauses

_BUDGET_LOOK_S = 0.02
_REMOTE_LINGER_S = 0.5
_LOOK_EVERY = 10  # replies, after the first fifty, between two that are judged at once
_MISCONFIGURED = (403, 404, 405)  # before any success these speak of endpoint, key or model, not of a request

Judged = Callable[[Request, Reply], str]
"""Why no row would come of a usable reply, as `gate: reason`; an empty text for one that gives a row."""

Fate = Literal["answered", "dropped", "failed", "pending", "left"]


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
        judged: for the canary; None: only `unusable` is looked at.
        progress: called after every final outcome with the outcome so far.
    """

    def __init__(
        self,
        teacher: Teacher,
        ledger: Ledger,
        *,
        unusable: Unusable,
        budget: Budget,
        judged: Judged | None = None,
        limiter: RateLimiter | None = None,
        limits: Limits | None = None,
        progress: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self._teacher = teacher
        self._ledger = ledger
        self._unusable = unusable
        self._judged = judged
        self._budget = budget
        self._limits = limits or Limits()
        self._limiter = limiter or RateLimiter(0, 0)
        self._progress = progress
        self._gate = AdaptiveGate(8, self._limits.concurrency)
        self._plausible = Plausible()
        # Every reply's form is looked at, and what the gates say of some.
        self._form_canary = Canary(self._limits.max_unusable)
        self._gate_canary = Canary(self._limits.max_unusable)
        self._since_success = 0
        self._refusals = 0
        self._pending: list[Entry] = []  # refused requests that are no drops yet
        self._pauses = Pauses(self._limits.first_pause, self._limits.longest_pause, spread=0.5)
        self.outcome = Outcome()

    async def run(self, requests: Iterator[Request]) -> Outcome:
        """Ask for every request of the iterator for which something is still to be asked."""
        missing = still_open(requests, self._ledger, self._unusable)
        linger, writers = _REMOTE_LINGER_S if self._ledger.remote else 0.0, self._limits.concurrency
        self._journal = Journal(self._ledger, linger, writers)
        self._holding = Holding(self._ledger, self._budget, self._journal)
        async with self._journal:
            workers = [asyncio.create_task(self._work(missing)) for _ in range(writers)]
            try:
                await asyncio.gather(*workers)
                if self.outcome.replies:
                    await self._record_pending()
                self.outcome.failed += len(self._pending)
            except BaseException:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
                raise
        # Not after an error: the last hold then stands for what was on the wire or could not be written.
        self._holding.close()
        return self.outcome

    async def _work(self, missing: Iterator[Request]) -> None:
        while not self.outcome.stopped:
            request = next(missing, None)
            if request is None:
                return
            fate = await self._pursue(request)
            if fate == "answered":
                self.outcome.answered += 1
            elif fate == "dropped":
                self.outcome.dropped += 1
            elif fate == "failed":
                self.outcome.failed += 1
            self._progress(self.outcome)

    async def _pursue(self, request: Request) -> Fate:
        """One request to its end."""
        retries = 0
        while not self.outcome.stopped:
            asked = request.repaired() if self._ledger.repairs(request.id) else request
            try:
                reply = await self._send(asked)
            except TeacherFailure as failure:
                if failure.suspect:
                    await self._teacher.renew()
                if failure.action in ("drop", "reject"):
                    return await self._refused(request, failure)
                retries += 1
                if failure.action == "retry" and retries > self._limits.retries:
                    return "failed"
                await self._after_failure(failure, retries)
                continue
            if reply is None:
                return "left"
            entry = self._entry(asked, reply)
            await self._journal.write(entry)
            await self._record_pending()
            await self._holding.fit()
            self._look(asked, reply, entry)
            if entry.final:
                return "answered" if entry.status == "answered" else "dropped"
        return "left"

    async def _send(self, request: Request) -> Reply | None:
        """One request over the wire; None when the run was stopped before it went out."""
        tokens = self._budget.input_tokens(request) + (request.max_tokens or 0) / 2
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
                await self._holding.cover()
                reply = await self._teacher.ask(request)
                doubt = self._plausible.doubt(request, reply.usage)
                if doubt:
                    raise TeacherFailure("retry", f"suspect: {doubt}", billed=True, usage=reply.usage, suspect=True)
            except TeacherFailure as failure:
                self.outcome.faults[str(failure)[:60]] += 1
                if failure.throttled:
                    self._gate.throttled(generation)
                if failure.billed:
                    await self._book(request, failure)
                else:
                    self._budget.release(request)
                raise
            self._gate.succeeded()
        self._since_success = self._refusals = 0
        self.outcome.replies += 1
        self._limiter.settle(tokens, reply.usage.input + reply.usage.output)
        return reply

    def _entry(self, request: Request, reply: Reply) -> Entry:
        if reply.usage.input and self._budget.absurd(request, reply.usage):
            self.outcome.faults["usage that cannot be; charged at the worst case"] += 1
            reply = Reply(reply.text, reply.finish_reason, reply.model, Usage(), reply.oversized)
        cost = self._budget.settle(request, reply.usage)
        reason = self._unusable(request.kind, reply)
        status: Status = "answered"
        if reason:
            final = reply.oversized or reply.finish_reason == "content_filter"
            repairable = not final and self._ledger.repairs(request.id) < self._limits.repairs
            status = "unusable" if repairable else "dropped"
        return Entry(
            request.id,
            self._ledger.attempts(request.id) + 1,
            status,
            reason,
            reply.text,
            reply.finish_reason,
            reply.model,
            reply.usage,
            cost,
            request.kind,
        )

    async def _book(self, request: Request, failure: TeacherFailure) -> None:
        """What the provider may charge for a request that brought nothing: its usage where known, else the worst."""
        usage = failure.usage or Usage()
        if usage.input and self._budget.absurd(request, usage):
            usage = Usage()
        attempt = self._ledger.attempts(request.id) + 1
        cost = self._budget.settle(request, usage)
        reason = f"possibly billed: {failure}"
        await self._journal.write(
            Entry(request.id, attempt, "billed", reason, "", "", request.model, usage, cost, request.kind)
        )

    def _look(self, request: Request, reply: Reply, entry: Entry) -> None:
        """Show the reply to the canary."""
        why = self._form_canary.see(entry.reason, reply.text)
        if self._judged and not why and (self._gate_canary.young or self.outcome.replies % _LOOK_EVERY == 0):
            why = self._gate_canary.see(entry.reason or self._judged(request, reply), reply.text)
        if why:
            self._stop(why)

    async def _refused(self, request: Request, failure: TeacherFailure) -> Fate:
        """A request that the server would not answer: its own fault, or that of all."""
        reason = f"teacher: {failure}"
        attempt = self._ledger.attempts(request.id) + 1
        entry = Entry(request.id, attempt, "dropped", reason, "", "", request.model, Usage(), 0.0, request.kind)
        # What an earlier run was answered shows that endpoint and key were right then: a run that resumes with nothing
        # but refused requests does not die of the first.
        succeeded = self.outcome.replies > 0 or len(self._ledger) > 0
        if succeeded and failure.action == "drop":
            await self._journal.write(entry)
            return "dropped"
        self._pending.append(entry)
        self._refusals += 1
        if not succeeded and failure.status in _MISCONFIGURED:
            self._stop(f"the teacher refused: {failure}")
        elif self._refusals >= self._limits.consecutive_refusals:
            self._stop(f"the teacher refused {self._refusals} requests in a row; the last: {failure}")
        return "pending"

    async def _record_pending(self) -> None:
        """Others succeed, so what was refused is dropped for its own sake; after a stop nobody knows."""
        if self._pending and not self.outcome.stopped:
            pending, self._pending = self._pending, []
            await asyncio.gather(*(self._journal.write(entry) for entry in pending))
            self.outcome.dropped += len(pending)

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
            await asyncio.sleep(self._pauses.before(retries - 1))

    def _stop(self, why: str) -> None:
        self.outcome.stopped = self.outcome.stopped or why
