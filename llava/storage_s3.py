"""The S3 half of `llava.storage`: one object at a time, with retries to a deadline.

Callers use `llava.storage`; what stands here takes remote URIs only. Every function raises StorageError: the store
refused, or did not answer before the deadline; `Absent` (one of them): no such object.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlparse

from llava.errors import StorageError, StoreAwayError
from llava.retrying import Pauses
from llava.storage_bulk import Bulk, Unsuited
from llava.storage_clients import bulk_of, client_of

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

T = TypeVar("T")

_PAUSES = Pauses(first=0.5, longest=10.0, spread=0.5)


class Absent(StorageError):
    """No such object, or no such file."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """An object's content, and what says whether it is still the same.

    Attributes:
        tag: the store's entity tag; another content has another one.
        age_s: seconds since it was written, by the store's own clock, so that clocks of machines need not agree.
    """

    data: bytes
    tag: str
    age_s: float


def read(uri: str) -> bytes:
    """Whole content."""
    bucket, key = _split(uri)
    plain = lambda: _client().get_object(Bucket=bucket, Key=key)["Body"].read()  # noqa: E731
    return _call(uri, _fast(lambda bulk: bulk.read(bucket, key), plain))


def read_range(uri: str, start: int, length: int, tag: str | None = None) -> bytes:
    """At most `length` bytes from byte `start`; exact even where a server ignores ranges and sends the whole object.

    Args:
        tag: only of the object that still has it; raises where another one stands there now.
    """
    bucket, key = _split(uri)
    plain = lambda: _get_range(bucket, key, start, length, tag)[0]  # noqa: E731
    return _call(uri, _fast(lambda bulk: bulk.read_range(bucket, key, start, length, tag), plain))


def read_start(uri: str, length: int) -> tuple[bytes, int]:
    """At most the first `length` bytes, and the size of the whole object: one request."""
    bucket, key = _split(uri)
    return _call(
        uri, _fast(lambda bulk: bulk.read_start(bucket, key, length), lambda: _get_range(bucket, key, 0, length, None))
    )


def _get_range(bucket: str, key: str, start: int, length: int, tag: str | None) -> tuple[bytes, int]:
    from botocore.exceptions import ClientError

    condition: Any = {"IfMatch": tag} if tag else {}
    try:
        reply = _client().get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{start + length - 1}", **condition)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "InvalidRange" and start == 0:
            return b"", 0  # the first bytes of an empty object
        raise
    body = reply["Body"]
    # Status 200 proves nothing: some servers cut the range and say 200, others send everything. Only a cut reply says
    # which bytes it holds.
    cut = reply.get("ContentRange")
    if not cut:
        body.read(start)
    part = body.read(length)
    body.close()
    total = cut.rpartition("/")[2] if cut else ""
    return part, int(total) if total.isdigit() else _size_of(bucket, key)


def read_tagged(uri: str) -> Tagged | None:
    """Content with tag and age; None when there is no such object."""
    bucket, key = _split(uri)

    def get() -> Tagged:
        reply = _client().get_object(Bucket=bucket, Key=key)
        written = reply["LastModified"]
        date = reply["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(date).timestamp() if date else time.time()
        return Tagged(reply["Body"].read(), reply["ETag"], max(now - written.timestamp(), 0.0))

    try:
        return _call(uri, get)
    except Absent:
        return None


def write(uri: str, data: bytes) -> None:
    """Put an object."""
    bucket, key = _split(uri)
    _call(uri, lambda: _client().put_object(Bucket=bucket, Key=key, Body=data))


def write_tagged(uri: str, data: bytes, tag: str | None) -> str | None:
    """Put an object only if it still has `tag` (None: only if there is none); returns the new tag, None if refused.

    Not every store looks at the condition: one that does not writes in any case. A refusal may also be this call's own
    success, repeated after a lost answer: read again to know.
    """
    from botocore.exceptions import ClientError

    bucket, key = _split(uri)
    condition: Any = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}

    def put() -> str | None:
        try:
            return _client().put_object(Bucket=bucket, Key=key, Body=data, **condition)["ETag"]
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if status == 412 or (status == 404 and tag):
                return None
            if status == 501:  # a store that knows no conditions
                return _client().put_object(Bucket=bucket, Key=key, Body=data)["ETag"]
            raise

    return _call(uri, put)


def size(uri: str) -> int | None:
    """Size in bytes; None when there is no such object."""
    bucket, key = _split(uri)
    try:
        return _call(uri, lambda: _size_of(bucket, key))
    except Absent:
        return None


def list_objects(uri: str) -> Iterator[tuple[str, int, str]]:
    """(path below `uri`, size, entity tag) of every object, sorted by path."""
    bucket, key = _split(uri)
    prefix = f"{key.rstrip('/')}/" if key else ""
    token: str | None = None
    while True:
        more: Any = {"ContinuationToken": token} if token else {}
        page = _call(uri, functools.partial(_client().list_objects_v2, Bucket=bucket, Prefix=prefix, **more))
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):
                yield item["Key"][len(prefix) :], item["Size"], item["ETag"]
        token = page.get("NextContinuationToken")
        if not token:
            return


def delete(uri: str) -> None:
    """Delete one object; absent is fine."""
    bucket, key = _split(uri)
    _call(uri, lambda: _client().delete_object(Bucket=bucket, Key=key))


def stat(uri: str) -> tuple[int, str]:
    """Size and entity tag.

    Raises:
        Absent: no such object.
    """
    bucket, key = _split(uri)
    reply = _call(uri, lambda: _client().head_object(Bucket=bucket, Key=key))
    return reply["ContentLength"], reply["ETag"]


def upload(local: Path, uri: str) -> None:
    """Put a file; a large one goes in parts."""
    bucket, key = _split(uri)
    _call(uri, lambda: _client().upload_file(str(local), bucket, key))


def begin_parts(uri: str) -> str:
    """Begin an upload in parts; returns its id. Nothing is seen of it before `finish_parts`."""
    bucket, key = _split(uri)
    return _call(uri, lambda: _client().create_multipart_upload(Bucket=bucket, Key=key)["UploadId"])


def send_part(uri: str, upload: str, number: int, data: bytes) -> str:
    """Send part `number` (from 1); returns its tag."""
    bucket, key = _split(uri)
    return _call(
        uri,
        lambda: _client().upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=data)["ETag"],
    )


def finish_parts(uri: str, upload: str, tags: Sequence[str]) -> None:
    """Make the object of its parts."""
    bucket, key = _split(uri)
    parts: Any = {"Parts": [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]}
    _call(
        uri,
        lambda: _client().complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload=parts),
    )


def abort_parts(uri: str, upload: str) -> None:
    """Take back what was sent; an upload that is not there is fine."""
    bucket, key = _split(uri)
    with suppress(Absent):
        _call(uri, lambda: _client().abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload))


def abort_unfinished(uri: str) -> int:
    """Take back every unfinished upload below `uri`, left by processes that died; returns how many there were.

    A store that cannot list them (some cannot) has a rule of its own for them, or none: that is no error here.
    """
    bucket, key = _split(uri)
    try:
        page = _call(uri, lambda: _client().list_multipart_uploads(Bucket=bucket, Prefix=f"{key.rstrip('/')}/"))
    except StorageError:
        return 0
    found = page.get("Uploads", [])
    for item in found:
        abort_parts(f"s3://{bucket}/{item['Key']}", item["UploadId"])
    return len(found)


def _size_of(bucket: str, key: str) -> int:
    return _client().head_object(Bucket=bucket, Key=key)["ContentLength"]


def _split(uri: str) -> tuple[str, str]:
    parsed = urlparse(uri)
    if not parsed.netloc:
        raise StorageError(f"{uri}: no bucket; expected s3://bucket/key")
    # A query string carries store settings in some Kubeflow artifact URIs; the environment rules here.
    return parsed.netloc, uri.split("://", 1)[1].partition("?")[0].partition("/")[2]


def _client() -> S3Client:
    # A client does not survive a fork: its sockets would be shared.
    return client_of(os.getpid())


def _fast(fast: Callable[[Bulk], T], plain: Callable[[], T]) -> Callable[[], T]:
    """`fast` where that works at once, else `plain`, whose answer and whose errors count."""

    def call() -> T:
        bulk = bulk_of(os.getpid())
        if bulk is not None:
            try:
                return fast(bulk)
            except Unsuited:
                pass
        return plain()

    return call


def _call(uri: str, call: Callable[[], T]) -> T:
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
    )

    cause: Exception | None = None
    for _ in _PAUSES.attempts(within_s=float(os.environ.get("LLAVA_STORAGE_DEADLINE_S", "120"))):
        try:
            return call()
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = error.response.get("Error", {}).get("Code", "")
            if status == 404 or code in ("NoSuchKey", "NoSuchBucket", "404"):
                raise Absent(f"{uri}: no such {'bucket' if code == 'NoSuchBucket' else 'object'}") from error
            if 400 <= status < 500 and status not in (408, 409, 429):
                raise StorageError(f"{uri}: the store refused with {status} {code}: {error}") from error
            cause = error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise StorageError(
                f"{uri}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or run under a service account that has them"
            ) from error
        except (ParamValidationError, UnicodeError) as error:  # a name that no object can have
            raise StorageError(f"{uri!a}: no object can have this name: {error}") from error
        except (BotoCoreError, OSError, S3UploadFailedError) as error:
            cause = error
    raise StoreAwayError(f"{uri}: the store did not answer before the deadline: {cause}") from cause
