"""Provider batch files: JSON lines that a provider's batch interface and vLLM's `run-batch` take, and their answers.

Importing is idempotent: an answer that the ledger has from an earlier import, from the same file or from another one,
changes nothing. Of several answers to one request a usable one wins, in whatever order they come.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llava import storage
from llava.errors import DataError
from llava.expansion.asking.budget import image_tokens, message_bytes
from llava.expansion.asking.entries import Entry, Status
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.prices import Price
from llava.expansion.asking.settled import Unusable, still_open
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.answers import read_answer
from llava.expansion.teachers.base import Reply, Usage
from llava.expansion.teachers.failures import TeacherFailure
from llava.json_lines import lines_in
from llava.parsing import parse_rows

MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
_URL = "/v1/chat/completions"
_COMMIT = 1000


def batch_line(request: Request) -> bytes:
    """One request as a line of a batch file."""
    line = {"custom_id": request.id, "method": "POST", "url": _URL, "body": request.body()}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def to_batch(requests: Iterable[Request], ledger: Ledger, unusable: Unusable) -> Iterator[Request]:
    """What is still to be asked and stands in no unfinished batch job, as it is asked next."""
    waiting = ledger.batched()
    for request in still_open(requests, ledger, unusable):
        if request.id not in waiting:
            yield request.repaired() if ledger.repairs(request.id) else request


def export_batches(
    requests: Iterable[Request],
    ledger: Ledger,
    folder: str,
    unusable: Unusable,
    *,
    most_requests: int = MOST_REQUESTS,
    most_bytes: int = MOST_BYTES,
) -> list[tuple[str, int, int]]:
    """Write what the ledger lacks as `requests-00000.jsonl`, ...; returns (uri, requests, bytes) of each file.

    Raises:
        DataError: a single request is larger than a file may be.
    """
    written: list[tuple[str, int, int]] = []
    lines: list[bytes] = []
    size = 0

    def flush() -> None:
        nonlocal lines, size
        if lines:
            uri = storage.join(folder, f"requests-{len(written):05d}.jsonl")
            storage.write_bytes(uri, b"".join(lines))
            written.append((uri, len(lines), size))
            lines, size = [], 0

    for request in to_batch(requests, ledger, unusable):
        line = batch_line(request)
        if len(line) > most_bytes:
            raise DataError(
                f"request {request.id} ({request.image.path}): {len(line)} bytes; a file holds {most_bytes}"
            )
        if len(lines) >= most_requests or size + len(line) > most_bytes:
            flush()
        lines.append(line)
        size += len(line)
    flush()
    return written


@dataclass
class Imported:
    """What an import found.

    Attributes:
        known: answers that an earlier import, or an earlier line, has brought already.
        again: usable answers to requests that had one: paid for twice, recorded, and without effect on the rows.
    """

    answered: int = 0
    known: int = 0
    again: int = 0
    unusable: int = 0
    dropped: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    foreign: int = 0
    broken: int = 0

    @property
    def of_this_job(self) -> int:
        """Lines that answer one of the job's requests."""
        return self.answered + self.known + self.again + self.unusable + self.dropped + sum(self.failed.values())


class Importer:
    """Reads answers into a ledger, one file after the other; only ids are held in memory, never texts.

    Args:
        requests: of the whole job.
        repairs: unusable replies after which a request is dropped.
    """

    def __init__(
        self,
        ledger: Ledger,
        requests: Iterable[Request],
        unusable: Unusable,
        price: Price,
        *,
        repairs: int = 2,
    ) -> None:
        self.found = Imported()
        self._ledger = ledger
        self._unusable = unusable
        self._price = price
        self._repairs = repairs
        self._sizes: dict[str, tuple[str, int]] = {}  # kind, and an upper bound of the tokens of the user's turn
        self._kinds: dict[str, Request] = {}  # one request of each kind: what its others share
        self._refused: list[tuple[str, str, str]] = []  # (id, reason, origin)
        self._waiting: list[Entry] = []
        self._origins: set[str] = set()  # of what waits
        self._new: dict[str, tuple[int, int]] = {}  # id -> entries and unusable replies among the waiting ones
        for request in requests:
            self._kinds.setdefault(request.kind, request)
            self._sizes[request.id] = (request.kind, len(request.context.encode()) + image_tokens(price, request))

    def read(self, lines: Iterable[tuple[int, bytes]]) -> None:
        """Read the lines of one answer file."""
        for _, line in lines:
            try:
                data = parse_rows(line)
                name, answer = read_answer(data, self._model)
            except (ValueError, KeyError, TypeError, AttributeError):
                self.found.broken += 1
                continue
            if name not in self._sizes:
                self.found.foreign += 1
                continue
            self._take(name, answer, _origin(data))
            if len(self._waiting) >= _COMMIT:
                self._commit()
        self._commit()

    def close(self) -> Imported:
        """Decide on refused requests: drops, if others were answered; returns what was found."""
        if self.found.answered + self.found.known + self.found.again:
            self.found.dropped += len(self._refused)
            for name, reason, origin in self._refused:
                self._add(name, "dropped", reason, "", "", self._model, Usage(), 0.0, origin)
            self._commit()
        else:
            self.found.failed.update(reason[:60] for _, reason, _ in self._refused)
        self._refused = []
        return self.found

    @property
    def _model(self) -> str:
        return next((request.model for request in self._kinds.values()), "")

    def _take(self, name: str, answer: Reply | TeacherFailure, origin: str) -> None:
        if origin in self._origins or self._ledger.known(origin):
            self.found.known += 1
            return
        self._origins.add(origin)
        if isinstance(answer, TeacherFailure):
            self._take_failure(name, answer, origin)
            return
        kind, _ = self._sizes[name]
        reason = self._unusable(kind, answer)
        status: Status = "answered"
        had_one = (
            not reason and name in self._ledger and any(e.status == "answered" for e in self._ledger.replies(name))
        )
        if reason:
            repairs = self._ledger.repairs(name) + self._new.get(name, (0, 0))[1]
            status = "unusable" if repairs < self._repairs else "dropped"
        self.found.again += had_one
        self.found.answered += status == "answered" and not had_one
        self.found.unusable += status == "unusable"
        self.found.dropped += status == "dropped"
        cost = self._price.of(answer.usage, batch=True) if answer.usage.input else self._worst(name)
        self._add(name, status, reason, answer.text, answer.finish_reason, answer.model, answer.usage, cost, origin)

    def _take_failure(self, name: str, failure: TeacherFailure, origin: str) -> None:
        if failure.action in ("retry", "stop"):
            self.found.failed[str(failure)[:60]] += 1
            if failure.billed:
                usage = failure.usage or Usage()
                cost = self._price.of(usage, batch=True) if usage.input else self._worst(name)
                self._add(name, "billed", f"possibly billed: {failure}", "", "", self._model, usage, cost, origin)
            return
        reason = f"teacher: {failure}"
        if failure.action == "reject":
            self._refused.append((name, reason, origin))
        else:
            self.found.dropped += 1
            self._add(name, "dropped", reason, "", "", self._model, Usage(), 0.0, origin)

    def _add(
        self, name: str, status: Status, reason: str, text: str, finish: str, model: str, usage: Usage, cost: float,
        origin: str,
    ) -> None:  # fmt: skip
        attempt = self._ledger.attempts(name) + self._new.get(name, (0, 0))[0] + 1
        kind, _ = self._sizes[name]
        entries, bad = self._new.get(name, (0, 0))
        self._new[name] = (entries + 1, bad + (status == "unusable"))
        self._waiting.append(Entry(name, attempt, status, reason, text, finish, model, usage, cost, kind, origin))

    def _commit(self) -> None:
        self._ledger.append(self._waiting)
        self._waiting, self._new, self._origins = [], {}, {origin for _, _, origin in self._refused}

    def _worst(self, name: str) -> float:
        kind, size = self._sizes[name]
        like = self._kinds[kind]
        return self._price.worst(message_bytes(like.prefix) + size, like.max_tokens or 0, batch=True)


def import_batches(
    uris: Sequence[str],
    ledger: Ledger,
    requests: Iterable[Request],
    unusable: Unusable,
    price: Price,
    *,
    repairs: int = 2,
) -> Imported:
    """Read answer files into the ledger; lines of other jobs and broken lines are counted, not fatal.

    Raises:
        DataError: no file, or no line is an answer to this job.
    """
    importer = Importer(ledger, requests, unusable, price, repairs=repairs)
    for uri in uris:
        with storage.as_local(uri).open("rb") as file:
            importer.read(lines_in(file))
    found = importer.close()
    if not found.of_this_job:
        raise DataError(
            f"{', '.join(uris)}: no line answers a request of this job ({found.foreign} of other jobs, "
            f"{found.broken} broken); give the same annotations, recipe and teacher_model as for export-batch"
        )
    return found


def _origin(answer: dict[str, Any]) -> str:
    """What tells one answer from another, wherever its line stands: its content."""
    content = json.dumps(answer, sort_keys=True, ensure_ascii=False)
    return f"batch:{hashlib.sha256(content.encode()).hexdigest()[:16]}"
