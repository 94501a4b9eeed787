"""Benchmarks handed round as a TSV with the images in base64, as MMBench began and VLMEvalKit has continued.

Columns are `index`, `question`, `image` (base64, a list of several, or the index of another row whose image it is),
`A`, `B`, ... where there are options, `answer`, `category`, and what a benchmark adds.
"""

from __future__ import annotations

import ast
import csv
import io
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llava import storage
from llava.errors import DataError, RowError
from llava.evaluation import question_files
from llava.evaluation.choices import LETTERS

# What pandas reads as missing, besides which the original takes any `nan` and `none`.
_MISSING = frozenset({"", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>", "n/a"})
_MISSING_AS_WRITTEN = frozenset({"NA", "NULL", "null"})
_BASE64 = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")
_LONGEST_LIST = 1 << 16


@dataclass(frozen=True)
class TableRow:
    """One row.

    Attributes:
        file, number: where it stands.
        key: its `index`.
        cells: every cell by its column.
        images: as `data:` URIs, in order.
        options: by letter; those that are missing leave no gap and move no other.
    """

    file: str
    number: int
    key: str
    cells: Mapping[str, str]
    images: tuple[str, ...]
    options: Mapping[str, str]

    def text(self, column: str) -> str:
        """A cell that must hold something.

        Raises:
            RowError: it does not.
        """
        return question_files.text(self.file, self.number, self.cells, column)

    def given(self, column: str, default: str = "") -> str:
        """A cell, or the default where it is missing."""
        value = self.cells.get(column)
        return default if missing(value) else str(value).strip()

    def letter(self) -> str:
        """The right option; empty where the file does not say.

        Raises:
            RowError: it is no option.
        """
        letter = self.given("answer")
        if letter and letter not in self.options:
            expected = f"one of {', '.join(self.options)}"
            raise RowError(self.file, self.number, "answer", letter, expected, problem="row-field")
        return letter

    def answers(self) -> list[str]:
        """The accepted answers: a text, or a list written as Python or JSON writes one.

        Raises:
            RowError: there is none, or the list is none of texts and numbers.
        """
        value = self.text("answer").strip()
        if not (value.startswith("[") and value.endswith("]")):
            return [value]
        try:
            found = ast.literal_eval(value) if len(value) <= _LONGEST_LIST else None  # data only: nothing is executed
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            found = None
        if not isinstance(found, list) or not found or not all(isinstance(item, (str, int, float)) for item in found):
            raise RowError(self.file, self.number, "answer", value, "a text or a list of texts", problem="row-field")
        return [str(item) for item in found]


def rows(file: str) -> Iterator[TableRow]:
    """The rows of a table.

    Raises:
        DataError: no rows, or no table.
        RowError: a row has other columns than the header, no index of its own, or no image.
    """
    table = read_table(file)
    places: dict[str, int] = {}
    for number, row in enumerate(table):
        key = question_files.text(file, number, row, "index")
        if key in places:
            raise RowError(file, number, "index", key, "an index of its own", problem="row-id")
        places[key] = number
    for key, number in places.items():
        row = table[number]
        image = row.get("image") or ""
        if image in places:  # another row's
            image = table[places[image]].get("image") or ""
        options = {letter: row[letter] for letter in LETTERS if not missing(row.get(letter))}
        yield TableRow(file, number, key, row, _images(file, number, image), options)


def read_table(file: str) -> list[dict[str, str]]:
    """The rows of a TSV with a header line.

    Raises:
        DataError: no rows, no TSV, or a row with another number of columns than the header.
    """
    csv.field_size_limit(sys.maxsize)
    try:
        table = list(csv.DictReader(io.StringIO(storage.read_text(file), newline=""), delimiter="\t"))
    except csv.Error as error:
        raise DataError(f"{file}: cannot be read as a TSV: {error}") from error
    if not table:
        raise DataError(f"{file}: no questions in it; expected a TSV with a header line")
    for index, row in enumerate(table):
        if None in row or None in row.values():
            raise RowError(file, index, "(line)", row.get("index"), f"{len(table[0])} columns", problem="row-format")
    return table


def missing(value: str | None) -> bool:
    """Whether a cell is empty as the original sees it: what pandas reads as missing, `nan`, `none`."""
    if value is None or value in _MISSING_AS_WRITTEN:
        return True
    return value.lower() in _MISSING or value.lower() in ("nan", "none")


def _images(file: str, number: int, cell: str) -> tuple[str, ...]:
    found = _BASE64.findall(cell) if cell.startswith("[") else [cell] if cell else []
    if not found:
        raise RowError(file, number, "image", cell, "a base64 image", problem="row-field")
    return tuple(f"data:image/jpeg;base64,{image}" for image in found)
