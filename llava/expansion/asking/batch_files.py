"""Provider batch files: JSON lines that a provider's batch interface and vLLM's `run-batch` take, and their answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llava import json_lines, storage
from llava.errors import DataError
from llava.expansion.asking.ledger import Entry, Ledger, Status
from llava.expansion.asking.limits import Limits
from llava.expansion.asking.prices import Price
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.base import Reply, Usage
from llava.expansion.teachers.failures import TeacherFailure
from llava.expansion.teachers.hosted import failure_of, read_completion
from llava.parsing import parse_rows

MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
_URL = "/v1/chat/completions"


def export_batches(
    requests: Iterator[Request],
    ledger: Ledger,
    folder: str,
    *,
    most_requests: int = MOST_REQUESTS,
    most_bytes: int = MOST_BYTES,
    repaired: Callable[[Request, int], Request] = lambda request, attempt: request,
) -> list[tuple[str, int, int]]:
    """Write what the ledger lacks as `requests-00000.jsonl`, ...; returns (uri, requests, bytes) of each file.

    Raises:
        DataError: a single request is larger than a file may be.
    """
    written: list[tuple[str, int, int]] = []
    lines: list[str] = []
    size = 0

    def flush() -> None:
        nonlocal lines, size
        if lines:
            uri = storage.join(folder, f"requests-{len(written):05d}.jsonl")
            storage.write_text(uri, "".join(lines))
            written.append((uri, len(lines), size))
            lines, size = [], 0

    for request in requests:
        if request.id in ledger:
            continue
        body = repaired(request, ledger.attempts(request.id) + 1).body()
        line = (
            json.dumps({"custom_id": request.id, "method": "POST", "url": _URL, "body": body}, ensure_ascii=False)
            + "\n"
        )
        length = len(line.encode())
        if length > most_bytes:
            raise DataError(f"request {request.id} ({request.image.path}): {length} bytes; a file holds {most_bytes}")
        if len(lines) >= most_requests or size + length > most_bytes:
            flush()
        lines.append(line)
        size += length
    flush()
    return written


@dataclass
class Imported:
    """What an import found."""

    answered: int = 0
    known: int = 0
    unusable: int = 0
    dropped: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    foreign: int = 0
    broken: int = 0


def import_batches(
    uris: Sequence[str],
    ledger: Ledger,
    requests: Iterator[Request],
    unusable: Callable[[Request, Reply], str],
    price: Price,
    *,
    repairs: int = Limits.repairs,
) -> Imported:
    """Read answer files into the ledger; lines of other jobs and broken lines are counted, not fatal.

    Raises:
        DataError: no file, or no line is an answer to this job.
    """
    imported = Imported()
    wanted: dict[str, dict[str, Any]] = {}
    for uri in uris:
        for _, line in json_lines.lines_of(storage.read_text(uri)):
            try:
                data = parse_rows(line)
                wanted[str(data["custom_id"])] = data
            except (ValueError, KeyError, TypeError):
                imported.broken += 1
    batch: list[Entry] = []
    for request in requests:
        answer = wanted.pop(request.id, None)
        if answer is None:
            continue
        if request.id in ledger:
            imported.known += 1
            continue
        entry = _entry(request, answer, ledger, unusable, price, repairs, imported)
        if entry is not None:
            batch.append(entry)
        if len(batch) >= 1000:
            ledger.append(batch)
            batch = []
    ledger.append(batch)
    imported.foreign = len(wanted)
    if not imported.answered + imported.known + imported.unusable + imported.dropped + sum(imported.failed.values()):
        raise DataError(
            f"{', '.join(uris)}: no line answers a request of this job ({imported.foreign} of other jobs, "
            f"{imported.broken} broken); give the same annotations, recipe and teacher_model as for export-batch"
        )
    return imported


def _entry(
    request: Request,
    answer: dict[str, Any],
    ledger: Ledger,
    unusable: Callable[[Request, Reply], str],
    price: Price,
    repairs: int,
    imported: Imported,
) -> Entry | None:
    attempt = ledger.attempts(request.id) + 1
    response = answer.get("response") or {}
    status_code = int(response.get("status_code") or 0)
    try:
        if status_code != 200:
            raise failure_of(status_code, response.get("body") or {"error": answer.get("error")}, {})
        reply = read_completion(response.get("body"), request.model)
    except TeacherFailure as failure:
        if failure.action == "drop":
            imported.dropped += 1
            return Entry(
                request.id, attempt, "dropped", f"teacher: {failure}", "", "", request.model, Usage(), 0.0, request.kind
            )
        imported.failed[str(failure)[:60]] += 1
        return None
    reason = unusable(request, reply)
    status: Status = "answered" if not reason else "unusable" if attempt <= repairs else "dropped"
    imported.answered += status == "answered"
    imported.unusable += status == "unusable"
    imported.dropped += status == "dropped"
    cost = price.of(reply.usage, batch=True)
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
