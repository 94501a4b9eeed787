"""Files for benchmarks whose right answers only a server has, in that server's format, checked before they are written.

A question that could not be asked has an empty answer in the file, so that the server takes it; how many there are is
part of what is reported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llava.errors import DataError


@dataclass(frozen=True)
class Submission:
    """A file to hand in: its name, its bytes, where it goes, its rows, and how many of them have no answer."""

    name: str
    data: bytes
    server: str
    rows: int
    empty: int


def json_list(name: str, server: str, rows: Sequence[Mapping[str, object]], key: str) -> Submission:
    """A JSON list of `{key: ..., "answer": text}`, as the EvalAI challenges take it.

    Raises:
        DataError: two rows with the same `key`, or no rows.
    """
    _check(name, [row[key] for row in rows])
    text = json.dumps(list(rows), ensure_ascii=False)
    return Submission(name, text.encode(), server, len(rows), sum(not row["answer"] for row in rows))


def json_lines(name: str, server: str, rows: Sequence[Mapping[str, object]]) -> Submission:
    """JSON lines of `{"question_id": ..., "prediction": text}`, as SEED-Bench's leaderboard takes them.

    Raises:
        DataError: two rows with the same id, or no rows.
    """
    _check(name, [row["question_id"] for row in rows])
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return Submission(name, text.encode(), server, len(rows), sum(not row["prediction"] for row in rows))


def spreadsheet(name: str, server: str, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> Submission:
    """An Excel workbook with one sheet and a header line, as MMBench's server takes it.

    Args:
        name: of the file.
        server: where it goes.
        columns: the header, `index` and `prediction` among them.
        rows: a value a column; absent ones stay empty.

    Raises:
        DataError: two rows with the same `index`, no rows, or a column that the server needs is not there.
    """
    from llava.evaluation.workbook import workbook

    _check(name, [row["index"] for row in rows])
    for needed in ("index", "question", "A", "B", "prediction"):
        if needed not in columns:
            raise DataError(f"{name}: found the columns {', '.join(columns)}; expected {needed!r} among them")
    table = [[row.get(column) for column in columns] for row in rows]
    return Submission(name, workbook(columns, table), server, len(rows), sum(not row["prediction"] for row in rows))


def _check(name: str, ids: Sequence[object]) -> None:
    if not ids:
        raise DataError(f"{name}: no answers to hand in")
    seen: set[object] = set()
    for key in ids:
        if key in seen:
            raise DataError(f"{name}: {key!r} is in it twice; the server takes every question once")
        seen.add(key)
