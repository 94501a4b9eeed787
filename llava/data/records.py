"""Records: the rows of LLaVA's JSON files, read verbatim, checked, and kept compactly.

A row is `{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}`; `row_forms` brings others to it.
`image` is absent in text-only rows and a list in multi-image rows. Rows of `blip_laion_cc_sbu_558k_meta.json`
(`{"url", "blip_caption", "image", "id"}`) are read as one caption each.

A row that cannot be used is a `RowError` in `RecordFile.problems`; it is never replaced by another. Two faults of the
published files are put right, and counted in `RecordFile.repairs`: a conversation that begins with an answer loses that
answer (as in the original), one that ends on a question loses that question (the original trains nothing of it).
"""

from __future__ import annotations

import bisect
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import numpy as np

from llava import storage
from llava.data.row_forms import to_llava
from llava.errors import DataError, RowError
from llava.image_token import IMAGE_TOKEN

Role = Literal["human", "gpt"]


@dataclass(frozen=True)
class Turn:
    """One side's words; `<image>` stands where an image goes."""

    role: Role
    text: str


@dataclass(frozen=True)
class Record:
    """One conversation: turns alternate, human first, gpt last, and hold exactly `len(images)` times `<image>`.

    Attributes:
        images: references for `llava.data.images.ImageSource`, in the order of their `<image>`.
        index: zero-based row in the file it came from, for messages.
    """

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    index: int = 0


class RecordList(Sequence[Record]):
    """Records as one block of bytes: a few hundred bytes a row instead of a few kilobytes of Python objects.

    Read-only and free of reference counts per row, so forked or threaded readers share it without copies.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        block, ends = bytearray(), array("q", [0])
        for record in records:
            turns = [[turn.role, turn.text] for turn in record.turns]
            row = json.dumps([record.id, record.images, turns, record.index], ensure_ascii=False)
            block += row.encode("utf-8", "surrogatepass")
            ends.append(len(block))
        self._block = block
        self._bounds_R = np.frombuffer(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._bounds_R) - 1

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = self._block[self._bounds_R[index] : self._bounds_R[index + 1]]
        id_, images, turns, row = json.loads(part.decode("utf-8", "surrogatepass"))
        return Record(id_, tuple(images), tuple(Turn(role, text) for role, text in turns), row)

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))


@dataclass
class RecordFile:
    """What a data file holds.

    Attributes:
        uri: where it was read.
        records: the usable rows, in file order.
        problems: the others.
        repairs: kind of repair -> rows; those rows are among `records`.
        sha256: of the file's bytes.
        total: rows in the file.
        starts: (first row, file) of each file where there are several; rows are numbered through all of them.
        places: name -> tar that holds images of these rows; the reader's own references are `<name>#<offset>+<size>`.
    """

    uri: str
    records: Sequence[Record]
    problems: list[RowError] = field(default_factory=list)
    repairs: Counter[str] = field(default_factory=Counter)
    sha256: str = ""
    total: int = 0
    starts: list[tuple[int, str]] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)

    def placed(self, problem: RowError) -> RowError:
        """A problem of a row, with the file and the row's number in it where the rows come from several."""
        if not self.starts or problem.file != self.uri:
            return problem
        start, file = self.starts[bisect.bisect_right([first for first, _ in self.starts], problem.row) - 1]
        row = problem.row - start
        return RowError(file, row, problem.field, problem.value, problem.expected, problem=problem.problem)


def read_records(uri: str, data: bytes | None = None) -> RecordFile:
    """Read rows: a file, several with commas between, a folder, a data set of the hub, or a mixture (see docs/rows.md).

    Args:
        data: its bytes, where they are at hand already; `uri` is then only its name.

    Raises:
        StorageError: they cannot be read.
        DataError: empty, not of a known form, or without rows.
        SettingsError: a mixture that is none, or a library is missing.
    """
    from llava.data.row_reading import read_rows

    return read_rows(uri, data)


def write_records(uri: str, records: Iterable[Record]) -> None:
    """Write LLaVA JSON that the original's loader reads: `image` is a string, absent for none, a list for several."""
    storage.write_json(uri, [row_from_record(record) for record in records], indent=1)


def row_from_record(record: Record) -> dict[str, Any]:
    """The JSON object of one record."""
    row: dict[str, Any] = {"id": record.id}
    if record.images:
        row["image"] = record.images[0] if len(record.images) == 1 else list(record.images)
    row["conversations"] = [{"from": turn.role, "value": turn.text} for turn in record.turns]
    return row


def record_from_row(row: Any, *, uri: str = "(memory)", index: int = 0, repairs: Counter[str] | None = None) -> Record:
    """Check one parsed row.

    Args:
        repairs: counts what was put right (see the module's docstring).

    Raises:
        RowError: with problem `row-type`, `field-missing`, `field-type`, `role`, `role-order`, `empty-answer`,
            `empty-question`, `no-answer` or `image-count`.
    """

    def wrong(fieldname: str, value: object, expected: str, problem: str) -> RowError:
        return RowError(uri, index, fieldname, value, expected, problem=problem)

    if not isinstance(row, dict):
        raise wrong("(row)", row, "an object with conversations or messages", "row-type")
    row = to_llava(row, wrong, lambda kind: _count(repairs, kind))
    images = _images(row.get("image"), wrong)
    identity = row.get("id", index)
    if not isinstance(identity, (str, int)) or isinstance(identity, bool):
        raise wrong("id", identity, "a string", "field-type")
    if "blip_caption" in row and "conversations" not in row:
        caption = row["blip_caption"]
        if not isinstance(caption, str):
            raise wrong("blip_caption", caption, "a string", "field-type")
        turns = [Turn("human", IMAGE_TOKEN), Turn("gpt", caption)]
    else:
        turns = _turns(row, wrong)
    if turns and turns[0].role == "gpt":
        turns = turns[1:]
        _count(repairs, "leading-answer-dropped")
    if turns and turns[-1].role == "human":
        turns = turns[:-1]
        _count(repairs, "trailing-question-dropped")
    if not turns:
        raise wrong("conversations", row.get("conversations"), "at least one question with an answer", "no-answer")
    for number, turn in enumerate(turns):
        expected = "human" if number % 2 == 0 else "gpt"
        if turn.role != expected:
            raise wrong(
                f"conversations[{number}].from", turn.role, f"{expected}: turns alternate, human first", "role-order"
            )
        if not turn.text.strip():
            problem = "empty-answer" if turn.role == "gpt" else "empty-question"
            raise wrong(f"conversations[{number}].value", turn.text, "text", problem)
        if turn.role == "gpt" and IMAGE_TOKEN in turn.text:
            raise wrong(f"conversations[{number}].value", turn.text, f"no {IMAGE_TOKEN} in an answer", "image-count")
    places = sum(turn.text.count(IMAGE_TOKEN) for turn in turns)
    if places != len(images):
        value = f"{places} {IMAGE_TOKEN} and {len(images)} image(s)"
        raise wrong(
            "conversations", value, f"as many {IMAGE_TOKEN} in the questions as images in the row", "image-count"
        )
    return Record(str(identity), images, tuple(turns), index)


def check_threshold(problems: Sequence[RowError], total: int, max_bad_rows: float) -> None:
    """Stop when too many rows are unusable.

    Args:
        problems: one per unusable row (a row counted twice counts once).
        total: rows looked at.
        max_bad_rows: largest share allowed, 0 to 1.

    Raises:
        DataError: more than that share is unusable, or no row is left; the message counts each problem and shows
            the first of each.
    """
    bad = len({(problem.file, problem.row) for problem in problems})
    if total == 0:
        raise DataError("no rows at all; expected at least one")
    if bad <= max_bad_rows * total and bad < total:
        return
    counts = Counter(problem.problem for problem in problems)
    first = {problem.problem: problem for problem in reversed(problems)}
    lines = [
        f"{bad} of {total} rows ({bad / total:.2%}) cannot be used; at most {max_bad_rows:.2%} may be (max_bad_rows)"
    ]
    lines += [f"  {name}: {count}, first: {first[name]}" for name, count in counts.most_common()]
    raise DataError("\n".join(lines))


def _images(value: Any, wrong: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    images = value if isinstance(value, list) else [value]
    for image in images:
        if not isinstance(image, str) or not image.strip():
            raise wrong(
                "image", value, "a path or URI, or a list of them; no key at all in a text-only row", "field-type"
            )
    return tuple(images)


def _turns(row: dict[str, Any], wrong: Any) -> list[Turn]:
    conversations = row.get("conversations")
    if conversations is None:
        raise wrong("conversations", sorted(row), "a list of turns", "field-missing")
    if not isinstance(conversations, list):
        raise wrong("conversations", conversations, "a list of turns", "field-type")
    turns = []
    for number, turn in enumerate(conversations):
        at = f"conversations[{number}]"
        if not isinstance(turn, dict):
            raise wrong(at, turn, "an object with from and value", "field-type")
        role, text = turn.get("from"), turn.get("value")
        if role not in ("human", "gpt"):
            raise wrong(f"{at}.from", role, "human or gpt", "role")
        if not isinstance(text, str):
            raise wrong(f"{at}.value", text, "a string", "field-type")
        turns.append(Turn(role, text))
    return turns


def _count(repairs: Counter[str] | None, kind: str) -> None:
    if repairs is not None:
        repairs[kind] += 1
