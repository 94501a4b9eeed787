"""Read the members of a large JSON file one by one, in constant memory.

COCO's `instances_train2017.json` is 450 MB and takes several GiB once parsed as a whole. Here a window of the text
moves over the file; each element of a top-level array is parsed when it is complete and then forgotten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from json.decoder import WHITESPACE  # type: ignore[attr-defined]  # the decoder's own compiled pattern
from pathlib import Path
from typing import Any

from llava.errors import DataError
from llava.parsing import BadNumber

_CHUNK_CHARS = 4 << 20
_LARGEST_VALUE_CHARS = 256 << 20


class JsonStream:
    """Iterate `(key, index, value)` over a JSON file.

    For a top-level object: every element of every array member as `(member, position, element)`, every other member
    as `(member, -1, value)`, and `(member, -2, None)` once for each array, before its elements. For a top-level
    array: `("", position, element)`.

    Args:
        path: the file, UTF-8.
        shown: name of the file in messages.

    Raises:
        DataError: while iterating: the file is empty, is not JSON, or is cut off; the message says at which character.
    """

    def __init__(self, path: Path, shown: str) -> None:
        self._path = path
        self._shown = shown
        self._decode = json.JSONDecoder(parse_constant=BadNumber).raw_decode
        self._hash = hashlib.sha256()
        self._text = ""
        self._at = 0
        self._before = 0  # characters dropped from the window so far
        self._ended = False
        self.sha256 = ""

    def __iter__(self) -> Iterator[tuple[str, int, Any]]:
        with self._path.open("rb") as file:
            self._file = file
            self._tail = b""
            first = self._peek()
            if first == "":
                raise DataError(f"{self._shown}: the file is empty; expected JSON")
            if first == "[":
                yield from self._array("")
            elif first == "{":
                yield from self._object()
            else:
                raise self._broken("expected a JSON object or list")
            if self._peek() != "":
                raise self._broken("expected the end of the file")
        self.sha256 = self._hash.hexdigest()

    def _object(self) -> Iterator[tuple[str, int, Any]]:
        self._take("{")
        if self._peek() == "}":
            self._take("}")
            return
        while True:
            key = self._value()
            if not isinstance(key, str):
                raise self._broken("expected a member's name")
            self._take(":")
            if self._peek() == "[":
                yield key, -2, None
                yield from self._array(key)
            else:
                yield key, -1, self._value()
            if self._peek() != ",":
                self._take("}")
                return
            self._take(",")

    def _array(self, key: str) -> Iterator[tuple[str, int, Any]]:
        self._take("[")
        if self._peek() == "]":
            self._take("]")
            return
        index = 0
        while True:
            yield key, index, self._value()
            index += 1
            # The common case without calls: `, {` inside the window.
            text, at = self._text, self._at
            if text.startswith(", ", at) and len(text) > at + 2:
                self._at = at + 2
                continue
            if self._peek() != ",":
                self._take("]")
                return
            self._take(",")

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                # A number at the window's edge may go on in the next piece.
                settled = end < len(self._text) and self._text[end] not in "0123456789.eE+-"
                if settled or self._ended or not isinstance(value, int | float):
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if self._ended or len(self._text) - self._at > _LARGEST_VALUE_CHARS:
                    raise self._broken(error.msg, error.pos) from error
            except RecursionError as error:
                raise self._broken("nested too deeply to be read") from error
            except ValueError as error:  # an integer of thousands of digits
                raise self._broken(str(error)) from error
            self._more()

    def _peek(self) -> str:
        while True:
            match = WHITESPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more()

    def _take(self, wanted: str) -> None:
        if self._peek() != wanted:
            raise self._broken(f"expected {wanted!r}")
        self._at += 1

    def _more(self) -> None:
        data = self._file.read(_CHUNK_CHARS)
        self._hash.update(data)
        self._ended = not data
        raw = self._tail + data
        try:
            piece = raw.decode("utf-8")
            self._tail = b""
        except UnicodeDecodeError as error:
            if self._ended or len(raw) - error.start > 4:
                raise DataError(f"{self._shown}: not UTF-8 near character {self._before + len(self._text)}") from error
            piece, self._tail = raw[: error.start].decode("utf-8"), raw[error.start :]
        self._before += self._at
        self._text = self._text[self._at :] + piece
        self._at = 0

    def _broken(self, why: str, at: int | None = None) -> DataError:
        where = self._before + (self._at if at is None else at)
        found = "the end of the file" if self._at >= len(self._text) else repr(self._text[self._at : self._at + 30])
        return DataError(f"{self._shown}: not JSON at character {where}: {why}; found {found}")
