"""Image-caption lists: blip_laion rows, LLaVA pre-training rows, and plain lists as JSON, JSON lines, CSV or TSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from llava import storage
from llava.errors import DataError, RowError
from llava.expansion.sources.checks import coco_id
from llava.expansion.sources.corpus import AnnotatedImage
from llava.expansion.sources.json_stream import JsonStream
from llava.json_lines import lines_of
from llava.manifest import sha256
from llava.parsing import Malformed, parse_rows

_IMAGE_FIELDS = ("image", "file_name", "image_path")
_CAPTION_FIELDS = ("blip_caption", "caption", "captions", "text")


class ListCorpus:
    """Images of a list, in order of first appearance; rows about one image become its captions.

    Args:
        uris: files; `.csv` and `.tsv` have a header, `.jsonl` an object a line, anything else is a JSON list.
        image_prefix: put before each image path.
        limit: only the first so many images; 0: all.

    Raises:
        DataError: a file is absent, empty, not of its form, or holds no usable row.
    """

    categories: tuple[str, ...] = ()

    def __init__(self, uris: Sequence[str], image_prefix: str, limit: int = 0) -> None:
        self.problems: list[RowError] = []
        self.rows_read = 0
        self._captions: dict[str, list[str]] = {}
        prefix = image_prefix.strip("/")
        hashes = []
        for uri in uris:
            rows = _Rows(uri)
            for index, row in rows:
                self.rows_read += 1
                try:
                    image, captions = captioned(uri, index, row)
                except RowError as problem:
                    self.problems.append(problem)
                    continue
                self._captions.setdefault(f"{prefix}/{image}" if prefix else image, []).extend(captions)
            hashes.append(rows.sha256)
        if not self._captions:
            first = f"; the first problem: {self.problems[0]}" if self.problems else ""
            raise DataError(f"{', '.join(uris)}: no usable row; expected rows with image and caption{first}")
        if limit:
            self._captions = dict(list(self._captions.items())[:limit])
        self.sha256 = hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode())

    def __len__(self) -> int:
        return len(self._captions)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        for image, captions in self._captions.items():
            yield AnnotatedImage(image, coco_id(image), 0, 0, tuple(dict.fromkeys(captions)))


class _Rows:
    """`(index, row)` of a list file, whatever its form."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self.sha256 = ""

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        if self._uri.endswith((".csv", ".tsv", ".jsonl")):
            data = storage.read_bytes(self._uri)
            self.sha256 = sha256(data)
            try:
                text = data.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise DataError(f"{self._uri}: not UTF-8: {error}") from error
            if not text.strip():
                raise DataError(f"{self._uri}: the file is empty; expected rows with image and caption")
            yield from self._lines(text)
            return
        stream = JsonStream(storage.as_local(self._uri), self._uri)
        for key, index, row in stream:
            if key != "":
                raise DataError(
                    f"{self._uri}: found an object with {key!r}; expected a list of rows with image and caption"
                )
            yield index, row
        self.sha256 = stream.sha256

    def _lines(self, text: str) -> Iterator[tuple[int, Any]]:
        if self._uri.endswith(".jsonl"):
            for index, line in lines_of(text):
                try:
                    yield index, parse_rows(line)
                except Malformed:
                    yield index, line
            return
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if self._uri.endswith(".tsv") else ",")
        try:
            yield from enumerate(reader)
        except csv.Error as error:  # a field of over 131,072 characters
            raise DataError(f"{self._uri}: line {reader.line_num}: {error}; expected a table with a header") from error


def captioned(uri: str, index: int, row: Any) -> tuple[str, list[str]]:
    """Image and captions of a row.

    Raises:
        RowError: it lacks one of them.
    """
    if not isinstance(row, dict):
        raise RowError(uri, index, "(row)", row, "an object with image and caption", problem="row-type")
    image = next((row[name] for name in _IMAGE_FIELDS if row.get(name)), None)
    if not isinstance(image, str) or not image.strip():
        raise RowError(uri, index, "image", image, "a path below the images root", problem="image-field")
    found = next((row[name] for name in _CAPTION_FIELDS if row.get(name)), None)
    if found is None and isinstance(row.get("conversations"), list):
        found = [
            turn.get("value") for turn in row["conversations"] if isinstance(turn, dict) and turn.get("from") == "gpt"
        ]
        found = found[:1]
    captions = found if isinstance(found, list) else [found]
    if not captions or not all(isinstance(caption, str) and caption.strip() for caption in captions):
        raise RowError(uri, index, "caption", found, "a non-empty text, or a list of them", problem="caption-row")
    return image.strip(), [" ".join(str(caption).split()) for caption in captions]
