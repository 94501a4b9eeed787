"""Rows out of files, as a stream: whatever the form, one row at a time goes into the compact block of records."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llava import storage
from llava.data import row_sources
from llava.data.range_file import BUFFER, buffered
from llava.data.records import Record, RecordFile, RecordList, record_from_row
from llava.data.row_sources import MIXTURE, TABLE, TAR
from llava.errors import DataError, RowError
from llava.json_lines import lines_in
from llava.parsing import Malformed, parse_rows

_HOPELESS = 1000  # lines, not one of them JSON, that make a file another kind of file
_EXPECTED = "expected a JSON list of rows, or one JSON object a line"


def read_rows(uri: str, data: bytes | None = None) -> RecordFile:
    """See `records.read_records`."""
    files = [uri] if data is not None else row_sources.files_of(uri)
    if len(files) == 1 and row_sources.form_of(files[0]) == MIXTURE:
        from llava.data.mixtures import read_mixture

        return read_mixture(files[0])
    made = RecordFile(uri, ())
    digest = hashlib.sha256()

    def usable() -> Iterator[Record]:
        for file in files:
            start = made.total
            made.starts.append((start, file))
            reader = Rows(file, data)
            for index, row in enumerate(reader):
                made.total += 1
                if isinstance(row, BrokenLine):
                    made.problems.append(RowError(file, index, *row.found, problem="not-json"))
                    continue
                try:
                    record = record_from_row(row, uri=file, index=index, repairs=made.repairs)
                except RowError as problem:
                    made.problems.append(problem)
                    continue
                yield record if not start else Record(record.id, record.images, record.turns, start + index)
            if made.total == start:
                raise DataError(f"{file}: no rows; expected at least one")
            made.places |= reader.places
            digest.update(reader.sha256.encode() if len(files) > 1 else b"")
            made.sha256 = reader.sha256

    made.records = RecordList(usable())
    if len(files) > 1:
        made.sha256 = digest.hexdigest()
    if len(files) == 1 and files[0] == uri:
        made.starts = []
    return made


class BrokenLine:
    """A line of JSON lines that is no JSON: its row's fault, not the file's.

    Attributes:
        found: where, what, and what would be right, as `RowError` has them.
    """

    def __init__(self, line: bytes, error: Malformed) -> None:
        said = str(error).removeprefix("not JSON: ")
        self.found = ("(line)", line[:200].decode("utf-8", "replace"), f"one JSON object a line ({said})")


class Rows:
    """The parsed rows of one file, in order, whatever its form; a line that cannot be read is a `BrokenLine`.

    Attributes:
        sha256: of what was read; complete after the last row.
        places: see `RecordFile.places`.
    """

    def __init__(self, uri: str, data: bytes | None = None) -> None:
        self.uri = uri
        self._data = data
        self.sha256 = ""
        self.places: dict[str, str] = {}

    def __iter__(self) -> Iterator[Any]:
        form = row_sources.form_of(self.uri)
        if form == TABLE:
            yield from self._table()
        elif form == TAR:
            yield from self._tar()
        elif form == MIXTURE:
            raise DataError(f"{self.uri}: a mixture among other files; expected it alone")
        else:
            yield from self._json()

    def _json(self) -> Iterator[Any]:
        data = self._data
        start, size = (data[:4096], len(data)) if data is not None else storage.read_start(self.uri, 4096)
        if not start.strip() and size <= len(start):
            raise DataError(f"{self.uri}: empty file; {_EXPECTED}")
        # A list is one document and read as one; lines are read as they come.
        if start.lstrip()[:1] in (b"[", b"") or start[:3] == b"\xef\xbb\xbf":
            data = storage.read_bytes(self.uri) if data is None else data
            self.sha256 = hashlib.sha256(data).hexdigest()
            rows = self._parsed(data)
            if isinstance(rows, list):
                for index, row in enumerate(rows):
                    yield row
                    rows[index] = None  # frees the parsed row: the block of records holds it now
                return
            yield rows
            return
        digest = hashlib.sha256()
        with buffered(self.uri) if data is None else io.BytesIO(data) as file:

            def chunks() -> Iterator[bytes]:
                while chunk := file.read(BUFFER):
                    digest.update(chunk)
                    yield chunk

            readable, broken, first = False, 0, None
            for _, line in lines_in(chunks()):
                row = self._line(line)
                if isinstance(row, BrokenLine):
                    broken += 1
                    first = first or row
                    if not readable and broken >= _HOPELESS:
                        break
                readable = readable or not isinstance(row, BrokenLine)
                yield row
            if first is not None and not readable:
                raise DataError(f"{self.uri}: not JSON: {first.found[2]}, found {first.found[1]!r}; {_EXPECTED}")
        self.sha256 = digest.hexdigest()

    def _line(self, line: bytes) -> Any:
        try:
            return parse_rows(line)
        except Malformed as error:
            return BrokenLine(line, error)

    def _parsed(self, text: bytes) -> Any:
        try:
            return parse_rows(text)
        except Malformed as error:
            raise DataError(f"{self.uri}: {error}; {_EXPECTED}") from error

    def _table(self) -> Iterator[Any]:
        from llava.data.tables import EMBEDDED, unpacked

        lines, tar = unpacked(self.uri)
        # A name that is the same on every node and at every start: what is kept of a check names images by it.
        name = f"{self.uri}!images"
        self.places = {name: str(tar)}
        digest = hashlib.sha256()
        with Path(lines).open("rb") as file:
            for line in file:
                digest.update(line)
                row = json.loads(line)
                for field in ("image", "images"):
                    if field in row:
                        row[field] = _embedded(row[field], EMBEDDED, name)
                yield row
        self.sha256 = digest.hexdigest()

    def _tar(self) -> Iterator[Any]:
        from llava.data.webdataset import tar_rows

        self.places = {self.uri: self.uri}
        digest = hashlib.sha256(str(storage.size(self.uri)).encode())
        for row in tar_rows(self.uri):
            shown = json.dumps(row, ensure_ascii=True, sort_keys=True, default=repr).replace(self.uri, "")
            digest.update(shown.encode())
            yield row
        self.sha256 = digest.hexdigest()


def _embedded(value: Any, name: str, place: str) -> Any:
    if isinstance(value, list):
        return [_embedded(one, name, place) for one in value]
    return place + value[len(name) :] if isinstance(value, str) and value.startswith(f"{name}#") else value
