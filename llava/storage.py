"""One way to read and write bytes, on disk and in any S3-compatible store.

A URI is a plain path, `file:///path`, or `s3://bucket/key` (`minio://` means the same). Endpoint, region and
credentials come from the usual AWS environment (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, web identity, ...),
never from our settings, so they cannot reach a log or a manifest.

Writes are atomic: a reader sees the old bytes or the new ones, never a part. Calls are retried until
`LLAVA_STORAGE_DEADLINE_S` (default 120 s) has passed, because botocore's own retries do not outlast a store
that restarts. Large numbers of small objects: call `read_bytes` from threads, the client is thread-safe.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlparse

from llava.errors import StorageError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

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
        return _local(uri, lambda path: path.read_bytes())
    bucket, key = _split(uri)
    return _remote(uri, lambda: _client().get_object(Bucket=bucket, Key=key)["Body"].read())


def read_range(uri: str, start: int, length: int) -> bytes:
    """`length` bytes from byte `start`; exact even where a server ignores ranges and sends the whole object.

    Raises:
        StorageError: as `read_bytes`, or the object ends before `start + length`.
    """
    if not is_remote(uri):

        def read(path: Path) -> bytes:
            with path.open("rb") as file:
                file.seek(start)
                return file.read(length)

        data = _local(uri, read)
    else:
        bucket, key = _split(uri)

        def get() -> bytes:
            reply = _client().get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{start + length - 1}")
            body = reply["Body"]
            # Status 200 proves nothing: some servers cut the range and say 200, others send everything. Only a cut
            # reply says which bytes it holds.
            if not reply.get("ContentRange"):
                body.read(start)
            part = body.read(length)
            body.close()
            return part

        data = _remote(uri, get)
    if len(data) != length:
        raise StorageError(f"{uri}: ends before byte {start + length}: got {len(data)} of {length} bytes from {start}")
    return data


def write_bytes(uri: str, data: bytes) -> None:
    """Write atomically and durably, creating folders.

    Raises:
        StorageError: forbidden, disk full, or the store did not answer before the deadline.
    """
    if not is_remote(uri):

        def write(path: Path) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(temporary, 0o666 & ~_umask())
                os.replace(temporary, path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise

        _local(uri, write)
        return
    bucket, key = _split(uri)
    _remote(uri, lambda: _client().put_object(Bucket=bucket, Key=key, Body=data))


def read_text(uri: str) -> str:
    """Whole content as UTF-8.

    Raises:
        StorageError: as `read_bytes`, or the content is not UTF-8.
    """
    try:
        return read_bytes(uri).decode("utf-8")
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
        return json.loads(read_bytes(uri))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"{uri}: not JSON: {error}") from error


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
    bucket, key = _split(uri)
    try:
        return _remote(uri, lambda: _client().head_object(Bucket=bucket, Key=key)["ContentLength"])
    except _Absent:
        return None


def list_files(uri: str) -> Iterator[FileInfo]:
    """All files below `uri`, sorted by path; nothing when the folder does not exist."""
    if not is_remote(uri):
        root = local_path(uri)
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            yield FileInfo(path.relative_to(root).as_posix(), path.stat().st_size)
        return
    bucket, key = _split(uri)
    prefix = f"{key.rstrip('/')}/" if key else ""
    token: str | None = None
    while True:
        more: Any = {"ContinuationToken": token} if token else {}
        page = _remote(uri, functools.partial(_client().list_objects_v2, Bucket=bucket, Prefix=prefix, **more))
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):
                yield FileInfo(item["Key"][len(prefix) :], item["Size"])
        token = page.get("NextContinuationToken")
        if not token:
            return


def delete(uri: str) -> None:
    """Delete the file at `uri` and every file below it; absent is fine."""
    if not is_remote(uri):
        path = local_path(uri)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return
    bucket, key = _split(uri)
    for item in list(list_files(uri)):
        _remote(uri, functools.partial(_client().delete_object, Bucket=bucket, Key=f"{key.rstrip('/')}/{item.path}"))
    _remote(uri, lambda: _client().delete_object(Bucket=bucket, Key=key))


def upload(local: Path, uri: str) -> None:
    """Copy a local file, or a folder with everything below it, to `uri`; large files go in parts.

    Raises:
        StorageError: as `write_bytes`.
    """
    if not is_remote(uri):
        target = local_path(uri)
        if local.resolve() == target.resolve():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if local.is_dir():
            shutil.copytree(local, target, dirs_exist_ok=True)
            # copytree also copies the mode, and temporary folders are their owner's alone.
            target.chmod(0o777 & ~_umask())
        else:
            shutil.copy2(local, target)
        return

    def put(path: Path, to: str) -> None:
        bucket, key = _split(to)
        _remote(to, lambda: _client().upload_file(str(path), bucket, key))

    if local.is_file():
        put(local, uri)
        return
    files = sorted(p for p in local.rglob("*") if p.is_file())
    with ThreadPoolExecutor(_TRANSFER_THREADS) as pool:
        list(pool.map(lambda path: put(path, join(uri, path.relative_to(local).as_posix())), files))


def download(uri: str, local: Path) -> None:
    """Copy a file, or a folder with everything below it, to a local path.

    Raises:
        StorageError: nothing stands at `uri`, or as `read_bytes`.
    """
    if not is_remote(uri):
        source = local_path(uri)
        if not source.exists():
            raise StorageError(f"{uri}: no such file or folder")
        local.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, local, dirs_exist_ok=True)
        else:
            shutil.copy2(source, local)
        return

    def get(source: str, to: Path) -> None:
        bucket, key = _split(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        _remote(source, lambda: _client().download_file(bucket, key, str(to)))

    files = list(list_files(uri))
    if not files:
        if size(uri) is None:
            raise StorageError(f"{uri}: no such object or folder")
        get(uri, local)
        return
    with ThreadPoolExecutor(_TRANSFER_THREADS) as pool:
        list(pool.map(lambda item: get(join(uri, item.path), local / item.path), files))


def as_local(uri: str, cache: Path | None = None) -> Path:
    """A local path with the content of `uri`: the path itself, or a copy fetched into `cache` (default: a folder that
    lives as long as the process).

    Raises:
        StorageError: nothing stands at `uri`.
    """
    if not is_remote(uri):
        path = local_path(uri)
        if not path.exists():
            raise StorageError(f"{uri}: no such file or folder")
        return path
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    target = (cache or Path(tempfile.mkdtemp(prefix="llava-", dir=_process_cache().name))) / name
    download(uri, target)
    return target


@functools.cache
def _process_cache() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="llava-cache-")


@functools.cache
def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _split(uri: str) -> tuple[str, str]:
    parsed = urlparse(uri)
    if not parsed.netloc:
        raise StorageError(f"{uri}: no bucket; expected s3://bucket/key")
    # A query string carries store settings in some Kubeflow artifact URIs; the environment rules here.
    return parsed.netloc, uri.split("://", 1)[1].partition("?")[0].partition("/")[2]


@functools.cache
def _client_of(process: int) -> S3Client:
    from boto3.session import Session
    from botocore.config import Config

    # A session of its own: boto3's default one keeps the first credentials it saw.
    return Session().client(
        "s3",
        config=Config(
            # Retrying is `_remote`'s, whose deadline botocore does not know: a store that hangs would be waited for
            # once per attempt.
            retries={"mode": "standard", "total_max_attempts": 2},
            max_pool_connections=64,
            connect_timeout=10,
            read_timeout=60,
            # Several stores answer without checksums or reject the trailing ones newer SDKs send.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _client() -> S3Client:
    # A client does not survive a fork: its sockets would be shared.
    return _client_of(os.getpid())


class _Absent(StorageError):
    pass


def _local(uri: str, call: Callable[[Path], T]) -> T:
    path = local_path(uri)
    try:
        return call(path)
    except FileNotFoundError as error:
        raise _Absent(f"{uri}: no such file") from error
    except OSError as error:
        raise StorageError(f"{uri}: {error.strerror or error}") from error


def _remote(uri: str, call: Callable[[], T]) -> T:
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    deadline = time.monotonic() + float(os.environ.get("LLAVA_STORAGE_DEADLINE_S", "120"))
    pause = 0.5
    while True:
        try:
            return call()
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = error.response.get("Error", {}).get("Code", "")
            if status == 404 or code in ("NoSuchKey", "NoSuchBucket", "404"):
                raise _Absent(f"{uri}: no such {'bucket' if code == 'NoSuchBucket' else 'object'}") from error
            if 400 <= status < 500 and status not in (408, 409, 429):
                raise StorageError(f"{uri}: the store refused with {status} {code}: {error}") from error
            cause: Exception = error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise StorageError(
                f"{uri}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or run under a service account that has them"
            ) from error
        except (BotoCoreError, OSError, S3UploadFailedError) as error:
            cause = error
        if time.monotonic() + pause > deadline:
            raise StorageError(f"{uri}: the store did not answer before the deadline: {cause}") from cause
        time.sleep(pause * (0.5 + random.random() / 2))
        pause = min(pause * 2, 10.0)
