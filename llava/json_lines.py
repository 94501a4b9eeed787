"""JSON lines, read as they are written: a line ends at `\\n` and nowhere else.

`str.splitlines()` also breaks at U+2028, U+2029, U+0085 and four more characters that JSON allows inside a string, so
a reader built on it loses rows that hold one. Every reader of JSON lines in this project comes through here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """(index, line) of each line of `text` that is not blank; the index counts every line, blank ones too."""
    for index, line in enumerate(text.split("\n")):
        if stripped := line.strip():
            yield index, stripped


def lines_in(chunks: BinaryIO | Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """(index, line) of each line that is not blank, from a binary file or from pieces of one cut anywhere.

    One line at a time is in memory, whatever the size of the file.
    """
    index, rest = 0, b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if stripped := line.strip():
                yield index, stripped
            index += 1
    if stripped := rest.strip():
        yield index, stripped
