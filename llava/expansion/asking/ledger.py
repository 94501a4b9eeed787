"""The append-only ledger of everything a teacher was paid for.

A ledger is a folder of JSON-lines segments. Every process writes a segment of its own and changes no other; an entry
counts only when it is durable: locally after fsync, in an object store once the put of its segment has been
acknowledged. So kill -9 at any moment loses at most replies still on the wire, and a hold says how much those can
have cost. A line torn by a crash stands at the end of a segment and is ignored, with a note; a broken line anywhere
else is damage, and an error.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from llava import storage
from llava.errors import DataError, SettingsError, StorageError
from llava.expansion.asking.entries import BatchJob, Entry, Record, decode, encode
from llava.expansion.asking.known import Accounts
from llava.expansion.asking.lease import Lease
from llava.expansion.teachers.base import Usage
from llava.local_files import explain, open_regular


class Ledger:
    """Open a ledger folder, creating it; all ids of all segments are indexed in memory, texts stay on disk.

    One run at a time: a local folder is locked, one in an object store is leased (see lease.py).

    Args:
        run: what other runs are told when they find it open; where its rows go, or a command's name.
        note: told, in words, when a lease has to be waited for.
        reading: only look at what is there, also while another run has it open; `append` is an error then.

    Raises:
        SettingsError: another run has it open, and not only for reading.
        DataError: a segment is damaged.
    """

    def __init__(
        self, uri: str, run: str = "", note: Callable[[str], None] = lambda text: None, *, reading: bool = False
    ) -> None:
        self.uri = uri
        self.notes: list[str] = []
        self.run = uuid.uuid4().hex[:16]
        self._accounts = Accounts(self.run)
        self.remote = storage.is_remote(uri)
        self._temporary = tempfile.TemporaryDirectory(prefix="llava-ledger-") if self.remote else None
        self._folder = Path(self._temporary.name) if self._temporary else storage.local_path(uri)
        self._segments: list[Path] = []
        self._readers: dict[int, IO[bytes]] = {}
        self._own: int | None = None
        self._written: set[str] = set()
        self._writer: IO[bytes] | None = None
        self._commits = 0
        self._reading = reading
        self._lock = None if self.remote or reading else self._take_lock()
        self._lease = Lease(uri, run, note=note) if self.remote and not reading else None
        try:
            if self.remote and (self._lease or storage.exists(uri)):
                storage.download(uri, self._folder)
            for path in sorted(self._folder.glob("segment-*.jsonl")):
                self._load(path)
        except BaseException:
            self._release()
            raise

    def __contains__(self, request_id: str) -> bool:
        """True when nothing more will be asked for the id: it was answered or dropped."""
        return self._accounts.final(request_id)

    def __len__(self) -> int:
        return self._accounts.finals

    @property
    def cost(self) -> float:
        """Everything paid or possibly paid: entries, what dead runs had in flight, batch jobs not yet collected."""
        return self._accounts.cost

    @property
    def possibly_billed(self) -> float:
        """The part of `cost` for which there is no reply; the provider's invoice may be lower by so much."""
        return self._accounts.possibly_billed

    @property
    def usage(self) -> Usage:
        """Tokens of all entries."""
        return self._accounts.usage

    def attempts(self, request_id: str) -> int:
        """Entries of an id so far; the next one's `attempt` is one more."""
        return self._accounts.attempts(request_id)

    def repairs(self, request_id: str) -> int:
        """Unusable replies to an id so far."""
        return self._accounts.repairs(request_id)

    @property
    def next_hold(self) -> int:
        """Number of this run's next hold."""
        return self._accounts.next_hold

    def known(self, origin: str) -> bool:
        """True when an answer of that origin was imported before."""
        return self._accounts.known(origin)

    def batches(self) -> list[BatchJob]:
        """Every batch job in the order of submission, each as last recorded."""
        return self._accounts.batches()

    def batched(self) -> set[str]:
        """Ids that stand in a batch job which is not finished."""
        return self._accounts.batched()

    def get(self, request_id: str) -> Entry | None:
        """What ended the asking for an id, read from disk; None when nothing has."""
        return next((entry for entry in self.replies(request_id) if entry.final), None)

    def replies(self, request_id: str) -> list[Entry]:
        """All replies to an id, usable or not, and a refusal to answer it, in the order of writing."""
        return [self._read(*place) for place in self._accounts.places(request_id)]

    def mean_output(self, kind: str) -> float | None:
        """Mean output tokens of the replies of one kind; None without any."""
        return self._accounts.mean_output(kind)

    def entries(self) -> Iterator[Entry]:
        """Every entry ever written, unusable attempts included, in order of segments."""
        for path in self._segments:
            with open_regular(path) as file:
                for line in file:
                    if line.endswith(b"\n") and isinstance(record := decode(line), Entry):
                        yield record

    def append(self, records: Sequence[Record]) -> None:
        """Write records durably; when this returns, they count.

        Raises:
            SettingsError: another run took over the lease, because this one could not renew it.
            StorageError: no room, or the store does not answer.
        """
        if self._reading:
            raise RuntimeError("this ledger was opened for reading")
        if not records:
            return
        lines = [encode(record) for record in records]
        offset = 0
        try:
            if self.remote:
                self._open_segment(f"-{self._commits:06d}")
            elif self._writer is None:
                self._open_segment("")
            assert self._writer is not None and self._own is not None
            offset = self._writer.tell()
            self._writer.write(b"".join(lines))
            self._writer.flush()
            if self.remote:
                path = self._segments[self._own]
                storage.write_bytes(storage.join(self.uri, path.name), path.read_bytes())
                self._written.add(path.name)
            else:
                os.fsync(self._writer.fileno())
        except OSError as error:
            self._abandon(offset)
            raise StorageError(
                f"ledger {self.uri}: cannot be written: {error}; make room and start again: what stands in it is safe, "
                "replies that were on their way count as possibly billed"
            ) from error
        self._commits += 1
        for record, line in zip(records, lines, strict=True):
            self._accounts.count(record, (self._own, offset))
            offset += len(line)
        if self._lease:
            self._lease.check()  # after the writing: what was paid for is never lost

    def close(self) -> None:
        """Release files, and the lock or the lease."""
        try:
            if self.remote:
                self._merge()
        finally:
            self._release()

    def _abandon(self, offset: int) -> None:
        """A write failed (disk full): cut what may stand half written, and let the next one start a segment."""
        if (file := self._writer) is None:
            return  # not even the segment could be made
        self._writer = None
        with contextlib.suppress(OSError):
            file.close()  # writes what it still buffers, if it can, so before the cut
        with contextlib.suppress(OSError):
            os.truncate(file.name, offset)

    def _read(self, segment: int, offset: int) -> Entry:
        reader = self._readers.get(segment)
        if reader is None:
            reader = self._readers[segment] = self._segments[segment].open("rb")
        reader.seek(offset)
        record = decode(reader.readline())
        assert isinstance(record, Entry)
        return record

    def _release(self) -> None:
        if self._lease:
            self._lease.release()
        for file in (self._writer, *self._readers.values(), self._lock):
            if file is not None:
                file.close()
        if self._temporary:
            self._temporary.cleanup()

    def _open_segment(self, suffix: str) -> None:
        if self._writer is not None:
            self._writer.close()
        # Time first, so that segments sort in order of writing; the process id keeps two writers apart.
        path = self._folder / f"segment-{time.time_ns():020d}-{os.getpid()}{suffix}.jsonl"
        self._writer = None
        self._writer = path.open("xb")
        if not self.remote:
            folder = os.open(self._folder, os.O_RDONLY)
            os.fsync(folder)  # the file's name must survive, too
            os.close(folder)
        self._own = len(self._segments)
        self._segments.append(path)

    def _load(self, path: Path) -> None:
        number = len(self._segments)
        self._segments.append(path)
        offset = 0
        try:
            opened = open_regular(path)
        except OSError as error:
            raise StorageError(f"{storage.join(self.uri, path.name)}: {explain(error, path)}; move it away") from error
        with opened as file:
            for index, line in enumerate(file):
                if not line.endswith(b"\n"):
                    self.notes.append(f"{path.name}: the last line was cut off by a crash and is ignored")
                    break
                try:
                    record = decode(line)
                except ValueError as error:
                    raise DataError(
                        f"{storage.join(self.uri, path.name)}: line {index + 1} is damaged ({error}); "
                        "restore the file, or remove that line to ask for its reply again"
                    ) from error
                self._accounts.count(record, (number, offset))
                offset += len(line)

    def _merge(self) -> None:
        """Replace this run's many small objects by one. A crash in between leaves entries twice, counted once."""
        own = [path for path in self._segments if path.name in self._written]
        if len(own) < 2:
            return
        merged = own[0].name.replace(".jsonl", "-merged.jsonl")
        storage.write_bytes(storage.join(self.uri, merged), b"".join(path.read_bytes() for path in own))
        for path in own:
            storage.delete(storage.join(self.uri, path.name))

    def _take_lock(self) -> IO[str]:
        place = self._folder / ".lock"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = place.open("w")
        except OSError as error:
            raise StorageError(f"ledger {self.uri}: cannot be opened: {explain(error, place)}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise SettingsError(
                f"ledger {self.uri}: another run has it open; wait for it or give another ledger_uri"
            ) from error
        return lock
