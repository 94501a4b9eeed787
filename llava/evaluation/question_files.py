"""Reading benchmark files: JSON and JSON lines, with errors that name file, row, field and what would be right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llava import storage
from llava.errors import DataError, RowError
from llava.json_lines import lines_of
from llava.parsing import Malformed, parse_rows


def files(uri: str) -> list[str]:
    """The files named by a comma-separated list of URIs."""
    named = [part.strip() for part in uri.split(",") if part.strip()]
    if not named:
        raise DataError("questions_uri: found ''; expected the benchmark's question file")
    return named


def json_lines(uri: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(index, object) of each non-empty line.

    Raises:
        DataError: the file is empty.
        RowError: a line is no JSON object.
    """
    index = -1
    for index, (_, line) in enumerate(lines_of(storage.read_text(uri))):
        try:
            row = parse_rows(line)
        except Malformed as error:
            raise RowError(uri, index, "(line)", line, f"a JSON object ({error})", problem="row-format") from error
        if not isinstance(row, dict):
            raise RowError(uri, index, "(line)", row, "a JSON object", problem="row-format")
        yield index, row
    if index < 0:
        raise DataError(f"{uri}: no questions in it; expected a JSON object a line")


def table(uri: str, key: str) -> list[dict[str, Any]]:
    """The list of objects under `key` of a JSON file.

    Raises:
        DataError: there is no such list, or it is empty.
    """
    data = storage.read_json(uri)
    rows = data.get(key) if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows:
        found = sorted(data)[:8] if isinstance(data, dict) else type(data).__name__
        raise DataError(f"{uri}: found {found}; expected a non-empty list under {key!r}")
    return rows


def text(uri: str, index: int, row: Mapping[str, Any], field: str) -> str:
    """A text (or number, as text) that a row must have.

    Raises:
        RowError: it is missing, empty or of another type.
    """
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or str(value).strip() == "":
        raise RowError(uri, index, field, value, "a text that is not empty", problem="row-field")
    return str(value)


def texts(uri: str, index: int, row: Mapping[str, Any], field: str) -> list[str]:
    """A non-empty list of texts that a row must have; `{"answer": text}` objects are taken as their text.

    Raises:
        RowError: it is missing, empty or of another type.
    """
    value = row.get(field)
    found = (
        [item.get("answer") if isinstance(item, dict) else item for item in value] if isinstance(value, list) else []
    )
    if not found or not all(isinstance(item, str) for item in found):
        raise RowError(uri, index, field, value, "a list of answers", problem="row-field")
    return [str(item) for item in found]
