"""A file or object read by ranges, as a file object: what tarfile and pyarrow ask for."""

from __future__ import annotations

import io
from typing import Any

from llava import storage
from llava.errors import StorageError

BUFFER = 4 << 20  # one request brings so much


class RangeFile(io.RawIOBase):
    """Read-only and seekable; wrap it in `io.BufferedReader(file, BUFFER)` for small reads.

    Raises:
        StorageError: nothing stands at `uri`.
    """

    def __init__(self, uri: str) -> None:
        size = storage.size(uri)
        if size is None:
            raise StorageError(f"{uri}: no such file")
        self._uri, self._size, self._at = uri, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), max(0, self._size - self._at))
        if length:
            buffer[:length] = storage.read_range(self._uri, self._at, length)
            self._at += length
        return length


def buffered(uri: str) -> io.BufferedReader:
    """A `RangeFile` that asks for megabytes at a time."""
    return io.BufferedReader(RangeFile(uri), BUFFER)
