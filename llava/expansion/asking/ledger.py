"""The append-only ledger of everything a teacher was paid for.

A ledger is a folder of JSON-lines segments. Every process writes a segment of its own and changes no other; an entry
counts only when it is durable: locally after fsync, in an object store once the put of its segment has been
acknowledged. So kill -9 at any moment loses at most replies still on the wire. A line torn by a crash stands at the
end of a segment and is ignored, with a note; a broken line anywhere else is damage, and an error.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from llava import storage
from llava.errors import DataError, SettingsError
from llava.expansion.asking.lease import Lease
from llava.expansion.teachers.base import Usage

Status = Literal["answered", "unusable", "dropped"]
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One reply, or one refusal to reply.

    Attributes:
        id: the request's id.
        attempt: 1 for the first paid attempt; repairs count on.
        status: `answered` and `dropped` are final; `unusable` was paid for, and is asked again while repairs are left.
        reason: why it is unusable or dropped; empty when answered.
        cost: in the price table's currency, at the price of the mode it was asked in.
    """

    id: str
    attempt: int
    status: Status
    reason: str
    text: str
    finish_reason: str
    model: str
    usage: Usage
    cost: float
    kind: str = ""

    @property
    def final(self) -> bool:
        """True when nothing more will be asked for this id."""
        return self.status != "unusable"


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
        self.cost = 0.0
        self.usage = Usage()
        self.remote = storage.is_remote(uri)
        self._temporary = tempfile.TemporaryDirectory(prefix="llava-ledger-") if self.remote else None
        self._folder = Path(self._temporary.name) if self._temporary else storage.local_path(uri)
        if not reading:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._segments: list[Path] = []
        self._readers: dict[int, IO[bytes]] = {}
        self._final: dict[str, tuple[int, int]] = {}
        self._attempts: dict[str, int] = {}
        self._output: dict[str, tuple[int, int]] = {}
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
        """True when the id has a final entry."""
        return request_id in self._final

    def __len__(self) -> int:
        return len(self._final)

    def attempts(self, request_id: str) -> int:
        """Paid attempts so far."""
        return self._attempts.get(request_id, 0)

    def get(self, request_id: str) -> Entry | None:
        """The final entry of an id, read from disk; None when there is none."""
        place = self._final.get(request_id)
        if place is None:
            return None
        segment, offset = place
        reader = self._readers.get(segment)
        if reader is None:
            reader = self._readers[segment] = self._segments[segment].open("rb")
        reader.seek(offset)
        return _entry(json.loads(reader.readline()))

    def mean_output(self, kind: str) -> float | None:
        """Mean output tokens of the replies of one kind; None without any."""
        tokens, replies = self._output.get(kind, (0, 0))
        return tokens / replies if replies else None

    def entries(self) -> Iterator[Entry]:
        """Every entry ever written, unusable attempts included, in order of segments."""
        for path in self._segments:
            with path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):
                        yield _entry(json.loads(line))

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries durably; when this returns, they count.

        Raises:
            SettingsError: another run took over the lease, because this one could not renew it.
        """
        if self._reading:
            raise RuntimeError("this ledger was opened for reading")
        if not entries:
            return
        lines = [(json.dumps(asdict(entry), ensure_ascii=False) + "\n").encode() for entry in entries]
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
        self._commits += 1
        for entry, line in zip(entries, lines, strict=True):
            self._count(entry, self._own, offset)
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
        with path.open("rb") as file:
            for index, line in enumerate(file):
                if not line.endswith(b"\n"):
                    self.notes.append(f"{path.name}: the last line was cut off by a crash and is ignored")
                    break
                try:
                    entry = _entry(json.loads(line))
                except (ValueError, TypeError, KeyError) as error:
                    raise DataError(
                        f"{storage.join(self.uri, path.name)}: line {index + 1} is damaged ({error}); "
                        "restore the file, or remove that line to ask for its reply again"
                    ) from error
                self._count(entry, number, offset)
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

    def _count(self, entry: Entry, segment: int, offset: int) -> None:
        if entry.final:
            self._final.setdefault(entry.id, (segment, offset))
        if entry.attempt <= self._attempts.get(entry.id, 0):
            return  # the same entry again, after a crash while segments were merged
        self._attempts[entry.id] = entry.attempt
        self.cost += entry.cost
        if entry.usage.output:
            tokens, replies = self._output.get(entry.kind, (0, 0))
            self._output[entry.kind] = (tokens + entry.usage.output, replies + 1)
        self.usage = Usage(
            self.usage.input + entry.usage.input,
            self.usage.cached_input + entry.usage.cached_input,
            self.usage.output + entry.usage.output,
        )

    def _take_lock(self) -> IO[str]:
        lock = (self._folder / ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise SettingsError(
                f"ledger {self.uri}: another run has it open; wait for it or give another ledger_uri"
            ) from error
        return lock


def _entry(data: dict[str, Any]) -> Entry:
    return Entry(**{**data, "usage": Usage(**data["usage"])})
