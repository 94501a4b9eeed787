"""What stands in a ledger, one JSON object a line: replies, holds on the budget, batch jobs. Each line has a checksum.

The checksum is the line's last field and covers every byte before it, so that a line that was changed is found even
where it is still JSON. Lines without one are of ledgers written before there were any, and are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from llava.expansion.teachers.base import MOST_TOKENS, Usage

Status = Literal["answered", "unusable", "dropped", "billed", "reopened"]
_STATUSES = get_args(Status)
_SUM = re.compile(rb', "sum": "([0-9a-f]{16})"\}$')


@dataclass(frozen=True, slots=True)
class Entry:
    """One reply, one refusal to reply, or money that was possibly spent without a reply.

    Attributes:
        id: the request's id.
        attempt: number of this entry among those of its id, from 1.
        status: what was decided when it was written. `answered` and `dropped` end the asking; `unusable` was paid for,
            and is asked again while repairs are left; `billed` brought nothing usable, but the provider may charge for
            it; `reopened` makes an id count as never asked, what it cost aside. Rows are decided from `text`, not from
            this, whenever they are built (see `settled`).
        reason: why it is unusable, dropped or billed; empty when answered.
        cost: in the price table's currency, at the price of the mode it was asked in.
        origin: of an imported answer, so that importing it again changes nothing; empty for one asked online.
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
    origin: str = ""

    @property
    def final(self) -> bool:
        """True when nothing more will be asked for this id."""
        return self.status in ("answered", "dropped")


@dataclass(frozen=True, slots=True)
class Hold:
    """An upper bound of what a run has in flight; if the run dies, that much counts as possibly billed.

    Attributes:
        run: of one opening of the ledger.
        number: the highest one of a run counts.
        amount: in the price table's currency.
    """

    run: str
    number: int
    amount: float


BatchState = Literal["submitting", "submitted", "collected", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class BatchJob:
    """One job at a provider's batch interface; the last record of a key counts.

    Attributes:
        key: our name for it, sent along where the provider takes one, so that a job whose creation was not recorded
            any more can be found again.
        number: the highest one of a key counts.
        job: the provider's id; empty until it is known.
        ids: the requests in it; only the first record of a key has them.
        hold: the worst case of its cost; counted as spent until it is collected.
        since: UTC seconds of the submission.
        note: why it failed, for people.
    """

    key: str
    number: int
    provider: str
    state: BatchState
    job: str = ""
    ids: tuple[str, ...] = ()
    hold: float = 0.0
    since: float = 0.0
    note: str = ""


Record = Entry | Hold | BatchJob
_KINDS: dict[str, type[Hold] | type[BatchJob]] = {"hold": Hold, "batch": BatchJob}


def encode(record: Record) -> bytes:
    """The record's line, its checksum and line end included."""
    data: dict[str, Any] = asdict(record)
    for name, kind in _KINDS.items():
        if isinstance(record, kind):
            data = {name: data}
    body = json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
    checksum = hashlib.sha256(body[:-1]).hexdigest()[:16]
    return body[:-1] + f', "sum": "{checksum}"}}\n'.encode()


def decode(line: bytes) -> Record:
    """The record of a line.

    Raises:
        ValueError: it is damaged; the message says how.
    """
    line = line.rstrip(b"\n")
    found = _SUM.search(line)
    if found:
        body = line[: found.start()]
        if hashlib.sha256(body).hexdigest()[:16] != found.group(1).decode():
            raise ValueError("its checksum does not fit its content")
        line = body + b"}"
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    try:
        for name, kind in _KINDS.items():
            if name in data:
                return _checked(kind(**_tuples(data[name])))
        return _checked(Entry(**{**data, "usage": Usage(**data["usage"])}))
    except (TypeError, KeyError) as error:
        raise ValueError(str(error)) from error


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}


def _checked(record: Record) -> Record:
    """Refuse numbers that no honest run wrote: a ledger is money."""
    if isinstance(record, Entry):
        amount = record.cost
        if record.status not in _STATUSES:
            raise ValueError(f"status {record.status!r}")
        if not _whole(record.attempt, 1):
            raise ValueError(f"attempt {record.attempt!r}")
        for one in fields(record.usage):
            if not _whole(value := getattr(record.usage, one.name), 0) or value > MOST_TOKENS:
                raise ValueError(f"usage.{one.name} {value!r}")
    else:
        amount = record.amount if isinstance(record, Hold) else record.hold
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not math.isfinite(amount) or amount < 0:
        raise ValueError(f"cost {amount!r}")
    return record


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
