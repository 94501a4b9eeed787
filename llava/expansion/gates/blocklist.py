"""Block-list: images of evaluation sets must not become training rows."""

from __future__ import annotations

import re
from typing import Any

from llava import storage
from llava.errors import DataError
from llava.expansion.gates.base import Sample
from llava.json_lines import lines_of
from llava.parsing import Malformed, parse_rows

_DIGITS = re.compile(r"(\d{1,12})(?:\.\w+)?$")


class BlocklistGate:
    """Images whose numeric COCO id is on the list, whatever folder or prefix they are named with."""

    name = "blocklist"

    def __init__(self, blocked: frozenset[int]) -> None:
        self.blocked = blocked

    def check(self, sample: Sample) -> str:
        """The id on the list."""
        return self.reason(sample.image.image_id)

    def reason(self, image_id: int | None) -> str:
        """The id on the list, for an image that has no reply yet; images without a COCO id are on no list."""
        return f"image {image_id} is of an evaluation set" if image_id in self.blocked else ""


def numeric_id(image: str) -> int | None:
    """`COCO_val2014_000000000042.jpg`, `train2017/000000000042.jpg`, `42` -> 42; None without digits at the end."""
    match = _DIGITS.search(image.strip())
    return int(match.group(1)) if match else None


def read_blocklist(uris: str) -> frozenset[int]:
    """Ids from comma-separated files: text (an id or file name a line), JSON lines or JSON with `image`, `image_id`,
    `file_name` or `id` fields, such as COCO annotations, POPE questions or LLaVA rows.

    Raises:
        DataError: a file from which no id could be read.
    """
    found: set[int] = set()
    for uri in (part.strip() for part in uris.split(",") if part.strip()):
        before = len(found)
        text = storage.read_text(uri)
        try:
            values = [parse_rows(text)] if text.lstrip()[:1] == "[" or uri.endswith(".json") else _lines(text)
        except Malformed as error:
            raise DataError(f"{uri}: {error}") from error
        for value in values:
            _collect(value, found)
        if len(found) == before:
            raise DataError(f"{uri}: no image id found; expected ids, file names, or JSON with image or image_id")
    return frozenset(found)


def _lines(text: str) -> list[Any]:
    return [parse_rows(line) if line.startswith("{") else line for _, line in lines_of(text)]


def _collect(value: Any, found: set[int]) -> None:
    if isinstance(value, list):
        for item in value:
            _collect(item, found)
    elif isinstance(value, dict):
        if "images" in value and isinstance(value["images"], list):
            _collect(value["images"], found)
            return
        for key in ("image_id", "image", "file_name", "id"):
            if key in value:
                _collect(value[key], found)
                return
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        found.add(value)
    elif isinstance(value, str):
        number = numeric_id(value)
        if number is not None:
            found.add(number)
