"""What a ledger knows without reading texts again: per id how far it is, per run and job what it may have cost."""

from __future__ import annotations

from dataclasses import replace

from llava.expansion.asking.entries import BatchJob, Entry, Hold, Record
from llava.expansion.teachers.base import Usage

Place = tuple[int, int]
"""(segment, byte offset) of an entry."""

_OPEN_STATES = ("submitting", "submitted")


class _Id:
    """One id: where its replies stand, entries so far, unusable ones among them, and whether asking has ended."""

    __slots__ = ("attempts", "final", "places", "repairs")

    def __init__(self) -> None:
        self.places: tuple[Place, ...] = ()
        self.attempts = 0
        self.repairs = 0
        self.final = False


class Accounts:
    """Counts records in the order of writing; a record that stands twice, after a crash while segments were merged,
    is counted once.

    Args:
        run: of the ledger's own opening: its hold is what it has in flight itself, so it is no cost yet.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._ids: dict[str, _Id] = {}
        self._output: dict[str, tuple[int, int]] = {}
        self._origins: set[int] = set()
        self._holds: dict[str, Hold] = {}
        self._batches: dict[str, BatchJob] = {}
        self._paid = 0.0
        self._billed = 0.0
        self.usage = Usage()
        self.finals = 0

    @property
    def possibly_billed(self) -> float:
        """Money without a reply."""
        held = sum(hold.amount for hold in self._holds.values() if hold.run != self._run)
        return self._billed + held + sum(job.hold for job in self._batches.values() if job.state in _OPEN_STATES)

    @property
    def cost(self) -> float:
        """All money."""
        return self._paid + self.possibly_billed

    @property
    def next_hold(self) -> int:
        hold = self._holds.get(self._run)
        return hold.number + 1 if hold else 1

    def final(self, request_id: str) -> bool:
        known = self._ids.get(request_id)
        return known is not None and known.final

    def attempts(self, request_id: str) -> int:
        known = self._ids.get(request_id)
        return known.attempts if known else 0

    def repairs(self, request_id: str) -> int:
        known = self._ids.get(request_id)
        return known.repairs if known else 0

    def places(self, request_id: str) -> tuple[Place, ...]:
        known = self._ids.get(request_id)
        return known.places if known else ()

    def known(self, origin: str) -> bool:
        return _short(origin) in self._origins

    def batches(self) -> list[BatchJob]:
        return list(self._batches.values())

    def batched(self) -> set[str]:
        return {one for job in self._batches.values() if job.state in _OPEN_STATES for one in job.ids}

    def mean_output(self, kind: str) -> float | None:
        tokens, replies = self._output.get(kind, (0, 0))
        return tokens / replies if replies else None

    def count(self, record: Record, place: Place) -> None:
        """Take note of one record."""
        if isinstance(record, Entry):
            self._count_entry(record, place)
        elif isinstance(record, Hold):
            hold = self._holds.get(record.run)
            if hold is None or record.number > hold.number:
                self._holds[record.run] = record
        else:
            earlier = self._batches.get(record.key)
            if earlier is None or record.number > earlier.number:
                ids = record.ids or (earlier.ids if earlier else ())
                self._batches[record.key] = replace(record, ids=ids)

    def _count_entry(self, entry: Entry, place: Place) -> None:
        known = self._ids.get(entry.id)
        if known is None:
            known = self._ids[entry.id] = _Id()
        if entry.attempt <= known.attempts:
            return
        known.attempts = entry.attempt
        if entry.status == "billed":
            self._billed += entry.cost
        else:
            self._paid += entry.cost
        self._progress(known, entry, place)
        if entry.origin:
            self._origins.add(_short(entry.origin))
        if entry.usage.output and entry.status != "billed":
            tokens, replies = self._output.get(entry.kind, (0, 0))
            self._output[entry.kind] = (tokens + entry.usage.output, replies + 1)
        was, new = self.usage, entry.usage
        self.usage = Usage(
            was.input + new.input,
            was.cached_input + new.cached_input,
            was.output + new.output,
            was.cache_write + new.cache_write,
        )

    def _progress(self, known: _Id, entry: Entry, place: Place) -> None:
        if entry.status == "reopened":
            self.finals -= known.final
            known.places, known.repairs, known.final = (), 0, False
        elif entry.status != "billed":
            known.places = (*known.places, place)
            known.repairs += entry.status == "unusable"
            if entry.final and not known.final:
                known.final = True
                self.finals += 1


def _short(origin: str) -> int:
    return int(origin.rpartition(":")[2][:15], 16)
