"""Batch jobs without hands: submit, poll, collect, submit again what failed, resume after a kill.

The first job is a small one: only when its replies are worth the money is the rest sent.

A job is in the ledger, with its requests and the worst case of its cost, before it is sent; so money is never hidden,
no request stands in two jobs, and a job whose creation was not recorded is found at the provider by our key.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeVar

from llava.errors import DataError, SettingsError
from llava.expansion.asking.batch_files import Importer, to_batch
from llava.expansion.asking.budget import Budget
from llava.expansion.asking.canary import Canary, short
from llava.expansion.asking.dispatch import Judged, Outcome
from llava.expansion.asking.entries import BatchJob, Entry
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.limits import Limits
from llava.expansion.asking.prices import Price
from llava.expansion.asking.settled import Unusable
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.base import Reply
from llava.expansion.teachers.batch_interfaces import BatchInterface, Seen
from llava.expansion.teachers.failures import TeacherFailure
from llava.retrying import Pauses

_T = TypeVar("_T")
_FRUITLESS = 3  # rounds in a row that bring nothing new


@dataclass(frozen=True)
class BatchLimits:
    """Bounds of batch jobs; 0: the provider's, or none.

    Attributes:
        enqueued_tokens: most input tokens in unfinished jobs.
        poll_s: seconds between two looks at a job.
        canary: requests of the first job, whose replies are judged before more is sent; 0: all is sent at once.
    """

    requests: int = 0
    bytes: int = 0
    enqueued_tokens: int = 0
    poll_s: float = 60.0
    canary: int = 50


class BatchRun:
    """Asks for a whole job through a batch interface.

    Args:
        requests: makes the iterator over every request anew.
        judged: why no row would come of a usable reply; None: only `unusable` is looked at.
        note: told what people should know.
    """

    def __init__(
        self, interface: BatchInterface, ledger: Ledger, requests: Callable[[], Iterator[Request]], *,
        unusable: Unusable, price: Price, max_cost: float, limits: Limits, batch: BatchLimits,
        note: Callable[[str], None], progress: Callable[[Outcome], None], judged: Judged | None = None,
    ) -> None:  # fmt: skip
        self._api, self._ledger, self._requests = interface, ledger, requests
        self._unusable, self._price, self._limits, self._batch = unusable, price, limits, batch
        self._budget = Budget(price, max_cost, 0.0, batch=True)
        self._note, self._progress, self._judged = note, progress, judged
        self._young = batch.canary > 0 and len(ledger) < batch.canary  # nobody knows yet what this teacher writes
        self._pauses = Pauses(limits.first_pause, limits.longest_pause)
        self._importer = Importer(ledger, requests(), unusable, price, repairs=limits.repairs)
        self._tokens = {one.id: self._budget.input_tokens(one) for one in requests()} if batch.enqueued_tokens else {}
        self._wait = False  # the provider's queue is full: nothing is sent before a job has ended
        self._full = False  # a job has just failed for that reason
        self._watched: set[str] = set()  # jobs that were under way in this run's time
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Until all is answered or dropped, or nothing new comes.

        Raises:
            DataError: the provider refuses.
        """
        fruitless = 0
        before = len(self._ledger)
        while True:
            self._adopt()
            sent = self._submit() if not self.outcome.stopped else 0
            jobs = self._open()
            if not jobs and not sent:
                return self._finish()
            self._full = False
            if sum(self._collect(job) for job in jobs):
                self._wait = self._full and bool(self._open())
                fruitless = 0 if len(self._ledger) > before or self._wait else fruitless + 1
                before = len(self._ledger)
                if fruitless >= _FRUITLESS:
                    self._stop(f"{fruitless} batch jobs in a row brought nothing that can be used")
            else:
                time.sleep(self._batch.poll_s)

    def _finish(self) -> Outcome:
        left = sum(1 for _ in to_batch(self._requests(), self._ledger, self._unusable))
        self.outcome.failed = 0 if self.outcome.stopped else left
        return self.outcome

    def _open(self) -> list[BatchJob]:
        return [job for job in self._ledger.batches() if job.state == "submitted" and job.provider == self._api.form]

    def _adopt(self) -> None:
        """Jobs that a killed run was about to create, or did without hearing of it."""
        for job in self._ledger.batches():
            if job.state != "submitting" or job.provider != self._api.form:
                continue
            found = self._search(job)
            if found:
                self._record(replace(job, state="submitted", job=found))
            else:
                self._record(replace(job, state="failed", hold=0.0, note="never created"))

    def _submit(self) -> int:
        """Send as many jobs as the limits and the budget allow; returns how many."""
        sent = 0
        waiting = to_batch(self._requests(), self._ledger, self._unusable)
        carried: Request | None = None
        while not self._wait and not (self._young and self._open()):
            chunk, lines, carried, full = self._fill(waiting, carried)
            if not chunk:
                if full == "budget" and not self._open():
                    self.outcome.budget = True
                    self._stop(f"the next batch job could exceed the budget of {self._budget.most:g}")
                elif full == "tokens" and not self._open():
                    raise SettingsError(
                        f"batch_enqueued_tokens: {self._batch.enqueued_tokens} is less than one request needs"
                    )
                return sent
            sent += self._create(chunk, lines)
            if full:
                return sent
        return sent

    def _fill(
        self, waiting: Iterator[Request], carried: Request | None
    ) -> tuple[list[Request], list[bytes], Request | None, str]:
        """The requests of one job, their lines, the one that found no room, and which limit of all jobs was met."""
        most = min(self._batch.requests or self._api.most_requests, self._api.most_requests)
        most = min(most, self._batch.canary) if self._young else most
        room = min(self._batch.bytes or self._api.most_bytes, self._api.most_bytes)
        queued = sum(self._tokens.get(one, 0.0) for one in self._ledger.batched())
        chunk: list[Request] = []
        lines: list[bytes] = []
        worst, size = 0.0, 0
        while len(chunk) < most:
            request, carried = (carried or next(waiting, None)), None
            if request is None:
                break
            line = self._api.line(request)
            if len(line) > room:
                raise DataError(f"request {request.id} ({request.image.path}): {len(line)} bytes; a job holds {room}")
            cost, tokens = self._budget.worst(request), self._tokens.get(request.id, 0.0)
            if self._budget.most and self._ledger.cost + worst + cost > self._budget.most:
                return chunk, lines, request, "budget"
            if self._batch.enqueued_tokens and queued + tokens > self._batch.enqueued_tokens:
                return chunk, lines, request, "tokens"
            if size + len(line) > room:
                return chunk, lines, request, ""
            chunk.append(request)
            lines.append(line)
            worst, size, queued = worst + cost, size + len(line), queued + tokens
        return chunk, lines, None, ""

    def _create(self, chunk: list[Request], lines: list[bytes]) -> int:
        worst = sum(self._budget.worst(request) for request in chunk)
        key = f"llava-{uuid.uuid4().hex[:20]}"
        ids = tuple(request.id for request in chunk)
        job = BatchJob(key, 1, self._api.form, "submitting", ids=ids, hold=worst, since=time.time())
        self._ledger.append([job])
        for attempt in range(self._limits.retries + 1):
            try:
                found = self._api.create(key, chunk[0].model, lines)
            except TeacherFailure as failure:
                if failure.status == 429 and self._open():
                    self._record(replace(job, state="failed", hold=0.0, note=str(failure)))
                    self._wait = True
                    return 0
                if failure.action != "retry" or attempt == self._limits.retries:
                    if not failure.billed:  # else nobody knows, and the next run looks for it
                        self._record(replace(job, state="failed", hold=0.0, note=str(failure)))
                    raise DataError(f"batch job of {len(chunk)} requests: {failure}") from failure
                time.sleep(failure.retry_after or self._pauses.before(attempt))
                # It may have been created, and only the answer lost.
                found = self._search(job)
                if not found:
                    continue
            self._record(replace(job, state="submitted", job=found))
            self._watched.add(key)
            self._note(f"batch job {found}: {len(chunk):,} requests, at most {worst:.2f}")
            return 1
        return 0

    def _collect(self, job: BatchJob) -> bool:
        """True when the job has ended, and what it brought is in the ledger."""
        seen: Seen = self._patiently(lambda: self._api.look(job.job))
        if not seen.ended:
            self._watched.add(job.key)
            return False
        found = self._importer.found
        good, bad = found.answered + found.known, found.unusable + found.dropped
        for file in seen.files:
            self._patiently(partial(self._read, file))
        self._importer.close()
        found = self._importer.found
        good, bad = found.answered + found.known - good, found.unusable + found.dropped - bad
        self._record(replace(job, state="failed" if seen.note else "collected", hold=0.0, note=seen.note))
        self.outcome.replies += good + bad
        self.outcome.answered, self.outcome.dropped = found.answered, found.dropped
        self.outcome.faults.update({seen.note[:60]: 1} if seen.note else {})
        self._progress(self.outcome)
        if "token_limit" in seen.note or "enqueued" in seen.note.lower():
            self._full = True
        elif seen.note and not good + bad:
            self._stop(f"batch job {job.job} failed: {seen.note}")
        if bad > self._limits.max_unusable * (good + bad):
            self._stop(
                f"{bad} of {good + bad} replies of batch job {job.job} cannot be used, more than max_unusable "
                f"({self._limits.max_unusable:g}){self._looked_like(job)}"
            )
        elif seen.cancelled and job.key in self._watched:
            # Who cancelled it while we were looking wants an end, not the same requests in another job.
            self._stop(f"batch job {job.job} was cancelled; the next run sends again what it had not answered")
        elif why := self._verdict(job):
            self._stop(f"batch job {job.job}: {why}")
        self._young = self._young and not good + bad
        return True

    def _verdict(self, job: BatchJob) -> str:
        """What the canary says of the job's first replies, form and gates together."""
        canary = Canary(self._limits.max_unusable)
        for request, entry in self._first_replies(job, Canary.WINDOW):
            reply = Reply(entry.text, entry.finish_reason, entry.model, entry.usage)
            reason = self._unusable(request.kind, reply) or (self._judged(request, reply) if self._judged else "")
            if why := canary.see(reason, entry.text):
                return why
        return ""

    def _looked_like(self, job: BatchJob) -> str:
        shown = [f"{entry.reason}: {short(entry.text)!r}" for _, entry in self._first_replies(job, 3) if entry.reason]
        return f"; the first ones: {'; '.join(shown)}" if shown else ""

    def _first_replies(self, job: BatchJob, most: int) -> Iterator[tuple[Request, Entry]]:
        """The last word on the first so many requests of the job that were answered at all."""
        asked = set(job.ids)
        answered = (
            (request, entries[-1])
            for request in self._requests()
            if request.id in asked and (entries := self._ledger.replies(request.id))
        )
        return islice(answered, most)

    def _read(self, file: str) -> None:
        self._importer.read(enumerate(self._api.fetch(file)))

    def _search(self, job: BatchJob) -> str:
        taken = {other.job for other in self._ledger.batches()}
        return self._patiently(lambda: self._api.find(job.key, len(job.ids), job.since, taken))

    def _record(self, job: BatchJob) -> None:
        known = next((one for one in self._ledger.batches() if one.key == job.key), job)
        self._ledger.append([replace(job, number=known.number + 1, ids=())])

    def _patiently(self, call: Callable[[], _T]) -> _T:
        """Retry what may pass; looking and fetching cost nothing."""
        for attempt in range(self._limits.retries + 1):
            try:
                return call()
            except TeacherFailure as failure:
                if failure.action != "retry" or attempt == self._limits.retries:
                    raise DataError(f"batch interface: {failure}; jobs under way are in the ledger") from failure
                time.sleep(failure.retry_after or self._pauses.before(attempt))
        raise AssertionError("unreachable")

    def _stop(self, why: str) -> None:
        self.outcome.stopped = self.outcome.stopped or why


def cancel_all(interface: BatchInterface, ledger: Ledger) -> int:
    """Cancel every unfinished job; the next run collects what they had answered."""
    jobs = [job for job in ledger.batches() if job.state == "submitted" and job.provider == interface.form]
    for job in jobs:
        interface.cancel(job.job)
    return len(jobs)
