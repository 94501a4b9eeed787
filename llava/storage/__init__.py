"""One way to read and write bytes, on disk and in any S3-compatible store.

A URI is a plain path, `file:///path`, or `s3://bucket/key` (`minio://` means the same). Endpoint, region and
credentials come from the usual AWS environment, never from our settings, so they reach no log or manifest.

Writes are atomic: a reader sees the old bytes or the new ones, never a part. Calls are retried until
`LLAVA_STORAGE_DEADLINE_S` (default 120 s) has passed, because botocore's own retries do not outlast a store
that restarts. Large numbers of small objects: call `read_bytes` from threads, the client is thread-safe.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlparse

from llava import local_files
from llava.errors import StorageError
from llava.parsing import Malformed, parse_json, parse_yaml
from llava.storage import s3
from llava.storage.calls import Absent as Absent
from llava.storage.fetching import Progress, Wanted, fetch
from llava.storage.s3 import Tagged
from llava.storage.streaming import Sink, local_sink, remote_sink

T = TypeVar("T")
_REMOTE = ("s3://", "minio://")
_TRANSFER_THREADS = 8


@dataclass(frozen=True)
class FileInfo:
    """One file below a listed URI: path relative to it, with forward slashes, and size in bytes."""

    path: str
    size: int


def is_remote(uri: str) -> bool:
    """True for object-store URIs, False for paths and file:// URIs."""
    return uri.startswith(_REMOTE)


def join(uri: str, *parts: str) -> str:
    """Append path parts with single slashes; works alike for paths and URIs."""
    tail = "/".join(part.strip("/") for part in parts if part.strip("/"))
    return f"{uri.rstrip('/')}/{tail}" if tail else uri


def local_path(uri: str) -> Path:
    """The path behind a path or file:// URI.

    Raises:
        StorageError: the URI is remote or of an unknown scheme.
    """
    if uri.startswith("file://"):
        return Path(unquote(urlparse(uri).path))
    if "://" in uri:
        raise StorageError(f"{uri}: not a local path; known schemes are plain paths, file://, s3:// and minio://")
    return Path(uri)


def read_bytes(uri: str) -> bytes:
    """Whole content.

    Raises:
        StorageError: absent, forbidden, or the store did not answer before the deadline.
    """
    if not is_remote(uri):
        return _local(uri, local_files.read)
    return s3.read(uri)


def read_range(uri: str, start: int, length: int) -> bytes:
    """`length` bytes from byte `start`; exact even where a server ignores ranges and sends the whole object.

    Raises:
        StorageError: as `read_bytes`, or the object ends before `start + length`.
    """
    if not is_remote(uri):
        data = _local(uri, lambda path: local_files.read(path, start, length))
    else:
        data = bytes(s3.read_range(uri, start, length))
    if len(data) != length:
        raise StorageError(f"{uri}: ends before byte {start + length}: got {len(data)} of {length} bytes from {start}")
    return data


def read_start(uri: str, length: int) -> tuple[bytes, int]:
    """At most the first `length` bytes, and the size of the whole file; one request to a store.

    Raises:
        StorageError: as `read_bytes`.
    """
    if is_remote(uri):
        return s3.read_start(uri, length)
    return _local(uri, lambda path: (local_files.read(path, 0, length), path.stat().st_size))


def write_bytes(uri: str, data: bytes) -> None:
    """Write atomically and durably, creating folders.

    Raises:
        StorageError: forbidden, disk full, or the store did not answer before the deadline.
    """
    if not is_remote(uri):

        def write(path: Path) -> None:
            local_files.replace(path, lambda file: file.write(data))

        _local(uri, write, need=len(data))
        return
    s3.write(uri, data)


def read_tagged(uri: str) -> Tagged | None:
    """Content, entity tag and age of an object; None when there is none. For object stores only.

    Raises:
        StorageError: a local path (lock a file instead), or as `read_bytes`.
    """
    _only_remote(uri)
    return s3.read_tagged(uri)


def write_tagged(uri: str, data: bytes, tag: str | None) -> str | None:
    """Write only if the object still has `tag` (None: only if there is none); returns its new tag, None if refused.

    For object stores only, and not all of them look at the condition: one that does not writes in any case. A refusal
    may also be this call's own success, repeated after a lost answer: read again to know.

    Raises:
        StorageError: a local path, or as `write_bytes`.
    """
    _only_remote(uri)
    return s3.write_tagged(uri, data, tag)


def read_text(uri: str) -> str:
    """Whole content as UTF-8, without the byte order mark that programs on Windows put in front.

    Raises:
        StorageError: as `read_bytes`, or the content is not UTF-8.
    """
    try:
        return read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StorageError(f"{uri}: not UTF-8 text: {error}") from error


def write_text(uri: str, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    write_bytes(uri, text.encode("utf-8"))


def read_json(uri: str) -> Any:
    """Parse JSON.

    Raises:
        StorageError: as `read_bytes`, or the content is not JSON; the message gives line and column.
    """
    try:
        return parse_json(read_bytes(uri), most_bytes=None)
    except Malformed as error:
        raise StorageError(f"{uri}: {error}") from error


def read_yaml(uri: str) -> Any:
    """Parse YAML, strictly (see `llava.parsing`).

    Raises:
        StorageError: as `read_text`, or the content is not YAML of the kind that is read.
    """
    try:
        return parse_yaml(read_text(uri))
    except Malformed as error:
        raise StorageError(f"{uri}: {error}") from error


def write_json(uri: str, value: Any, *, indent: int | None = 2) -> None:
    """Write JSON atomically; NaN and Infinity are refused, because no reader but Python takes them."""
    write_text(uri, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def exists(uri: str) -> bool:
    """True when a file stands at `uri`, or any file below it."""
    if not is_remote(uri):
        return local_path(uri).exists()
    return next(list_files(uri), None) is not None or size(uri) is not None


def size(uri: str) -> int | None:
    """Size of the file in bytes, or None when there is none."""
    if not is_remote(uri):
        path = local_path(uri)
        return path.stat().st_size if path.is_file() else None
    return s3.size(uri)


def list_files(uri: str) -> Iterator[FileInfo]:
    """All files below `uri`, sorted by path; nothing when the folder does not exist."""
    if not is_remote(uri):
        root = local_path(uri)
        names = (path.relative_to(root) for path in sorted(root.rglob("*")) if path.is_file())
        yield from (FileInfo(n.as_posix(), (root / n).stat().st_size) for n in names if not local_files.is_temporary(n))
        return
    for name, length, _ in s3.list_objects(uri):
        yield FileInfo(name, length)


def delete(uri: str) -> None:
    """Delete the file at `uri` and every file below it; absent is fine."""
    if not is_remote(uri):
        path = local_path(uri)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return
    for item in list(list_files(uri)):
        s3.delete(join(uri.partition("?")[0], item.path))
    s3.delete(uri)


def delete_unfinished(uri: str) -> None:
    """Delete what uploads below `uri` left in the store when their process died; only while nobody uploads."""
    if is_remote(uri):
        s3.abort_unfinished(uri)


def upload(local: Path, uri: str) -> None:
    """Copy a local file, or a folder with everything below it, to `uri`; large files go in parts.

    Raises:
        StorageError: as `write_bytes`.
    """
    if not is_remote(uri):
        _local(uri, lambda target: local_files.copy(local, target), need=local_files.bytes_below(local))
        return

    if local.is_file():
        s3.upload(local, uri)
        return
    files = sorted(p for p in local.rglob("*") if p.is_file())
    with ThreadPoolExecutor(_TRANSFER_THREADS) as pool:
        list(pool.map(lambda path: s3.upload(path, join(uri, path.relative_to(local).as_posix())), files))


def download(uri: str, local: Path, progress: Progress | None = None) -> None:
    """Copy a file, or a folder with everything below it, to a local path.

    Args:
        progress: called with (bytes done, bytes in all) of a remote URI.

    Raises:
        StorageError: nothing stands at `uri`, the disk is too small (found before anything is fetched), or as
            `read_bytes`.
    """
    if not is_remote(uri):
        source = local_path(uri)
        if not source.exists():
            raise StorageError(f"{uri}: no such file or folder")
        _local(str(local), lambda target: local_files.copy(source, target), need=local_files.bytes_below(source))
        return
    wanted = [
        Wanted(join(uri.partition("?")[0], name), local_files.below(local, name), length, tag)
        for name, length, tag in s3.list_objects(uri)
    ]
    if not wanted:
        wanted = [Wanted(uri, local, *s3.stat(uri))]
    fetch(wanted, progress)


def download_files(uri: str, paths: Collection[str], local: Path, progress: Progress | None = None) -> None:
    """Copy chosen files below a remote folder, as `download`; one that is absent is found before any is fetched."""
    listed = {name: (length, tag) for name, length, tag in s3.list_objects(uri)}
    absent = sorted(path for path in paths if path not in listed)
    if absent:
        raise StorageError(f"{uri}: {absent[0]} is not there" + (f", nor {len(absent) - 1} more" if absent[1:] else ""))
    fetch([Wanted(join(uri, name), local_files.below(local, name), *listed[name]) for name in paths], progress)


@contextmanager
def open_writer(uri: str, size: int) -> Iterator[Sink]:
    """Write something large piece by piece, without a copy; it appears when the block ends without an error.

    Args:
        size: about how many bytes will be written.

    Raises:
        StorageError: as `write_bytes`.
    """
    if is_remote(uri):
        with remote_sink(uri, size) as sink:
            yield sink
        return
    path = local_path(uri)
    try:
        with local_sink(path) as file:
            yield file
    except OSError as error:
        raise StorageError(f"{uri}: {local_files.explain(error, path, size)}") from error


def as_local(uri: str, cache: Path | None = None) -> Path:
    """A local path with the content of `uri`: the path itself, or a copy fetched into `cache` (default: a folder that
    lives as long as the process).

    Raises:
        StorageError: nothing stands at `uri`, or a FIFO or device does.
    """
    if not is_remote(uri):
        path = local_path(uri)
        if not path.is_dir():
            _local(uri, lambda place: local_files.open_regular(place).close(), absent="no such file or folder")
        return path
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    target = (cache or Path(tempfile.mkdtemp(prefix="llava-", dir=_process_cache().name))) / name
    download(uri, target)
    return target


@functools.cache
def _process_cache() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="llava-cache-")


def _only_remote(uri: str) -> None:
    if not is_remote(uri):
        raise StorageError(f"{uri}: conditional writes are for object stores (s3://, minio://)")


def _local(uri: str, call: Callable[[Path], T], *, need: int = 0, absent: str = "no such file") -> T:
    path = local_path(uri)
    try:
        return call(path)
    except FileNotFoundError as error:
        raise Absent(f"{uri}: {absent}") from error
    except OSError as error:
        raise StorageError(f"{uri}: {local_files.explain(error, path, need)}") from error
    except ValueError as error:  # NUL, or half a surrogate pair, in a name
        raise StorageError(f"{uri!a}: no file can have this name: {error}") from error
