"""Reading benchmark files: JSON and JSON lines, with errors that name file, row, field and what would be right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from llava import storage
from llava.errors import DataError, RowError
from llava.json_lines import lines_of
from llava.parsing import BadNumber, Malformed, parse_rows

T = TypeVar("T")


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


def asked(uri: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(index, row) of a question file of LLaVA's own: a JSON line each with `question_id`, `image` and the prompt as
    `text`, as `playground/data/eval` has them.

    Raises:
        DataError: the file is empty.
        RowError: a line is no JSON object, or one of the three is missing.
    """
    for index, row in json_lines(uri):
        for field in ("question_id", "image", "text"):
            row[field] = text(uri, index, row, field)
        yield index, row


def by_id(uri: str) -> dict[str, Any]:
    """A JSON object of rows by id, as GQA, ScienceQA and MM-Vet ship theirs.

    Raises:
        DataError: it is no such object, or empty.
    """
    data = storage.read_json(uri)
    if not isinstance(data, dict) or not data:
        raise DataError(f"{uri}: found {type(data).__name__}; expected an object of questions by id that is not empty")
    for key, row in data.items():
        if not isinstance(row, dict):
            raise DataError(f"{uri}: {key}: found {type(row).__name__}; expected an object")
    return data


def rows(uri: str) -> list[dict[str, Any]]:
    """A JSON list of objects.

    Raises:
        DataError: it is no such list, or empty.
    """
    data = storage.read_json(uri)
    if not isinstance(data, list) or not data or not all(isinstance(row, dict) for row in data):
        raise DataError(f"{uri}: found {_kinds(data)}; expected a list of objects that is not empty")
    return data


def _kinds(data: object) -> str:
    if not isinstance(data, list):
        return type(data).__name__
    if not data:
        return "an empty list"
    index = next(index for index, row in enumerate(data) if not isinstance(row, dict))
    return f"a list with {type(data[index]).__name__} as row {index}"


def gold_of(golds: Mapping[str, T], key: str, uri: str, index: int, gold_uri: str) -> T:
    """The right answer that belongs to a question.

    Raises:
        RowError: there is none of that id.
    """
    if key not in golds:
        raise RowError(uri, index, "question_id", key, f"an id that is in {gold_uri}", problem="row-id")
    return golds[key]


def ten(uri: str, index: int, row: Mapping[str, Any]) -> list[str]:
    """The ten people's answers that a question of the VQA family has.

    Raises:
        RowError: there are not ten; the accuracy is defined over the ten.
    """
    found = texts(uri, index, row, "answers")
    if len(found) != 10:
        raise RowError(
            uri, index, "answers", f"{len(found)} answers", "the ten answers of ten people", problem="row-field"
        )
    return found


def table(uri: str, key: str) -> list[dict[str, Any]]:
    """The list of objects under `key` of a JSON file.

    Raises:
        DataError: there is no such list, or it is empty.
    """
    data = storage.read_json(uri)
    return table_of(uri, data, key)


def table_of(uri: str, data: object, key: str) -> list[dict[str, Any]]:
    """As `table`, of a file that has been parsed.

    Raises:
        DataError: as `table`.
    """
    rows = data.get(key) if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows:
        found = sorted(data)[:8] if isinstance(data, dict) else type(data).__name__
        raise DataError(f"{uri}: found {found}; expected a non-empty list under {key!r}")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise RowError(uri, index, key, row, "an object", problem="row-format")
    return rows


def text(uri: str, index: int, row: Mapping[str, Any], field: str) -> str:
    """A text (or number, as text) that a row must have.

    Raises:
        RowError: it is missing, empty or of another type.
    """
    value = row.get(field)
    if not _plain(value) or str(value).strip() == "":
        raise RowError(uri, index, field, value, "a text that is not empty", problem="row-field")
    return str(value)


def given(uri: str, index: int, row: Mapping[str, Any], field: str, default: str = "") -> str:
    """A text (or number, as text) that a row may have; the default where it is missing, null or empty.

    Raises:
        RowError: it is of another type.
    """
    value = row.get(field)
    if value is None or value == "":
        return default
    if not _plain(value):
        raise RowError(uri, index, field, value, "a text", problem="row-field")
    return str(value)


def whole(uri: str, index: int, row: Mapping[str, Any], field: str) -> int:
    """A whole number from 0, or its digits, that a row must have.

    Raises:
        RowError: it is missing or anything else.
    """
    value = text(uri, index, row, field)
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise RowError(uri, index, field, row.get(field), "a whole number", problem="row-field")
    return int(value)


def _plain(value: object) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, (bool, BadNumber))


def texts(uri: str, index: int, row: Mapping[str, Any], field: str) -> list[str]:
    """A non-empty list of texts that a row must have; `{"answer": text}` objects are taken as their text.

    Raises:
        RowError: it is missing, empty or of another type.
    """
    value = row.get(field)
    found = (
        [item.get("answer") if isinstance(item, dict) else item for item in value] if isinstance(value, list) else []
    )
    if not found or not all(isinstance(item, str) and not isinstance(item, BadNumber) for item in found):
        raise RowError(uri, index, field, value, "a list of answers", problem="row-field")
    return [str(item) for item in found]
