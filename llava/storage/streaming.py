"""Writing something large without holding it twice: straight to its place, part by part, whole or absent in the end.

To a store it goes as a multipart upload whose parts are tried again one by one; a local file takes its name when it is
whole and durable.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

from llava import local_files
from llava.errors import StorageError
from llava.storage import s3

PART_BYTES = 32 << 20
MOST_PARTS = 10_000  # S3's limit
_AT_ONCE = 4


class Sink(Protocol):
    """What takes the bytes, in order."""

    def write(self, data: memoryview | bytes, /) -> object: ...


@contextmanager
def local_sink(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name when the block ends without an error. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{local_files.TEMPORARY}{path.name[:100]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        local_files.put_in_place(Path(temporary), path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    local_files.sync_folder(path.parent)


@contextmanager
def remote_sink(uri: str, size: int) -> Iterator[Sink]:
    """An object that appears when the block ends without an error; of about `size` bytes.

    Raises:
        StorageError: the store refused, or did not answer before the deadline; what was sent is taken back.
    """
    part_bytes = max(PART_BYTES, -(-size // (MOST_PARTS - 10)))
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="llava-upload") as pool:
        upload = _Multipart(uri, part_bytes, pool)
        try:
            yield upload
            upload.finish()
        except BaseException:
            upload.abort()
            raise


class _Multipart:
    def __init__(self, uri: str, part_bytes: int, pool: ThreadPoolExecutor) -> None:
        self._uri, self._part_bytes, self._pool = uri, part_bytes, pool
        self._buffer = bytearray()
        self._id: str | None = None
        self._sent: deque[Future[str]] = deque()
        self._tags: list[str] = []

    def write(self, data: memoryview | bytes, /) -> None:
        view = memoryview(data).cast("B")
        while view:
            room = self._part_bytes - len(self._buffer)
            self._buffer += view[:room]
            view = view[room:]
            if len(self._buffer) == self._part_bytes:
                self._send()

    def finish(self) -> None:
        if self._id is None:
            s3.write(self._uri, bytes(self._buffer))
            return
        if self._buffer:
            self._send()
        self._collect(0)
        s3.finish_parts(self._uri, self._id, self._tags)

    def abort(self) -> None:
        for future in self._sent:
            future.cancel()
        for future in self._sent:
            with suppress(BaseException):
                future.result()
        if self._id is not None:
            with suppress(StorageError):
                s3.abort_parts(self._uri, self._id)

    def _send(self) -> None:
        if self._id is None:
            self._id = s3.begin_parts(self._uri)
        self._collect(_AT_ONCE - 1)  # a bounded number of parts in memory
        number = len(self._tags) + len(self._sent) + 1
        self._sent.append(self._pool.submit(s3.send_part, self._uri, self._id, number, bytes(self._buffer)))
        self._buffer.clear()

    def _collect(self, leave: int) -> None:
        while len(self._sent) > leave:
            self._tags.append(self._sent.popleft().result())
