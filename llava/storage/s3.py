"""The S3 half of `llava.storage`: one object at a time, with retries to a deadline.

Callers use `llava.storage`; what stands here takes remote URIs only. Every function raises StorageError: the store
refused, or did not answer before the deadline; `Absent` (one of them): no such object.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from llava.errors import StorageError
from llava.storage.calls import Absent, body_of, call, client, split
from llava.storage.integrity import Damaged, Verdict, encrypted, is_md5, judge, md5_of, tags_are_something_else


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
    bucket, key = split(uri)
    return call(uri, lambda: _get_whole(bucket, key), lambda bulk: bulk.read(bucket, key))


def judge_whole(uri: str, tag: str | None, md5: str) -> Verdict:
    """What an object's tag says of the MD5 of what was read of it."""
    return judge(client().meta.endpoint_url, split(uri)[0], tag, md5)


def believe_no_tags(uri: str) -> None:
    """Remember that the tags of a bucket's objects say nothing of their bytes."""
    tags_are_something_else(client().meta.endpoint_url, split(uri)[0])


def read_range(uri: str, start: int, length: int, tag: str | None = None) -> memoryview:
    """At most `length` bytes from byte `start`, not copied; exact even where a server ignores ranges.

    Args:
        tag: only of the object that still has it; raises where another one stands there now.
    """
    bucket, key = split(uri)
    return call(
        uri,
        lambda: memoryview(_get_range(bucket, key, start, length, tag)[0]),
        lambda bulk: bulk.read_range(bucket, key, start, length, tag),
    )


def read_start(uri: str, length: int) -> tuple[bytes, int]:
    """At most the first `length` bytes, and the size of the whole object: one request."""
    bucket, key = split(uri)
    return call(
        uri, lambda: _get_range(bucket, key, 0, length, None), lambda bulk: bulk.read_start(bucket, key, length)
    )


def _get_whole(bucket: str, key: str) -> bytes:
    endpoint = client().meta.endpoint_url
    before = ""
    while True:
        # Where the store keeps a checksum, botocore compares it.
        reply = client().get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        data = body_of(reply["Body"])
        if encrypted(reply):
            tags_are_something_else(endpoint, bucket)
        if not is_md5(tag := reply.get("ETag")):
            return data
        found = md5_of(data)
        verdict = judge(endpoint, bucket, tag, found)
        if verdict in (Verdict.SAME, Verdict.SILENT):
            return data
        if verdict is Verdict.SUSPECT and not before:
            before = found
            continue
        if verdict is Verdict.SUSPECT and before == found:
            tags_are_something_else(endpoint, bucket)
            return data
        raise Damaged(f"{len(data)} bytes with MD5 {found[:12]}..., its entity tag is {str(tag)[:13]}...")


def _get_range(bucket: str, key: str, start: int, length: int, tag: str | None) -> tuple[bytes, int]:
    from botocore.exceptions import ClientError

    condition: Any = {"IfMatch": tag} if tag else {}
    try:
        reply = client().get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{start + length - 1}", **condition)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "InvalidRange" and start == 0:
            return b"", 0  # the first bytes of an empty object
        raise
    body = reply["Body"]
    # Status 200 proves nothing: some servers cut the range and say 200, others send everything. Only a cut reply says
    # which bytes it holds.
    cut = reply.get("ContentRange")
    if not cut:
        body_of(body, start)
    part = body_of(body, length)
    body.close()
    total = cut.rpartition("/")[2] if cut else ""
    return part, int(total) if total.isdigit() else _size_of(bucket, key)


def read_tagged(uri: str) -> Tagged | None:
    """Content with tag and age; None when there is no such object."""
    bucket, key = split(uri)

    def get() -> Tagged:
        reply = client().get_object(Bucket=bucket, Key=key)
        written = reply["LastModified"]
        date = reply["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(date).timestamp() if date else time.time()
        return Tagged(body_of(reply["Body"]), reply["ETag"], max(now - written.timestamp(), 0.0))

    try:
        return call(uri, get)
    except Absent:
        return None


def write(uri: str, data: bytes) -> None:
    """Put an object."""
    bucket, key = split(uri)
    call(uri, lambda: client().put_object(Bucket=bucket, Key=key, Body=data), size=len(data))


def write_tagged(uri: str, data: bytes, tag: str | None) -> str | None:
    """Put an object only if it still has `tag` (None: only if there is none); returns the new tag, None if refused.

    Not every store looks at the condition: one that does not writes in any case. A refusal may also be this call's own
    success, repeated after a lost answer: read again to know.
    """
    from botocore.exceptions import ClientError

    bucket, key = split(uri)
    condition: Any = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}

    def put() -> str | None:
        try:
            return client().put_object(Bucket=bucket, Key=key, Body=data, **condition)["ETag"]
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if status == 412 or (status == 404 and tag):
                return None
            if status == 501:  # a store that knows no conditions
                return client().put_object(Bucket=bucket, Key=key, Body=data)["ETag"]
            raise

    return call(uri, put, size=len(data))


def size(uri: str) -> int | None:
    """Size in bytes; None when there is no such object."""
    bucket, key = split(uri)
    try:
        return call(uri, lambda: _size_of(bucket, key))
    except Absent:
        return None


def list_objects(uri: str) -> Iterator[tuple[str, int, str]]:
    """(path below `uri`, size, entity tag) of every object, sorted by path."""
    bucket, key = split(uri)
    prefix = f"{key.rstrip('/')}/" if key else ""
    token: str | None = None
    while True:
        more: Any = {"ContinuationToken": token} if token else {}
        page = call(uri, functools.partial(client().list_objects_v2, Bucket=bucket, Prefix=prefix, **more))
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):
                yield item["Key"][len(prefix) :], item["Size"], item["ETag"]
        token = page.get("NextContinuationToken")
        if not token:
            return


def delete(uri: str) -> None:
    """Delete one object; absent is fine."""
    bucket, key = split(uri)
    call(uri, lambda: client().delete_object(Bucket=bucket, Key=key))


def stat(uri: str) -> tuple[int, str]:
    """Size and entity tag.

    Raises:
        Absent: no such object.
    """
    bucket, key = split(uri)
    reply = call(uri, lambda: client().head_object(Bucket=bucket, Key=key))
    return reply["ContentLength"], reply["ETag"]


def upload(local: Path, uri: str) -> None:
    """Put a file; a large one goes in parts."""
    bucket, key = split(uri)
    call(uri, lambda: client().upload_file(str(local), bucket, key), size=local.stat().st_size)


def begin_parts(uri: str) -> str:
    """Begin an upload in parts; returns its id. Nothing is seen of it before `finish_parts`."""
    bucket, key = split(uri)
    return call(uri, lambda: client().create_multipart_upload(Bucket=bucket, Key=key)["UploadId"])


def send_part(uri: str, upload: str, number: int, data: bytes) -> str:
    """Send part `number` (from 1); returns its tag."""
    bucket, key = split(uri)
    return call(
        uri,
        lambda: client().upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=data)["ETag"],
        size=len(data),
    )


def finish_parts(uri: str, upload: str, tags: Sequence[str]) -> None:
    """Make the object of its parts."""
    bucket, key = split(uri)
    parts: Any = {"Parts": [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]}
    call(
        uri,
        lambda: client().complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload=parts),
    )


def abort_parts(uri: str, upload: str) -> None:
    """Take back what was sent; an upload that is not there is fine."""
    bucket, key = split(uri)
    with suppress(Absent):
        call(uri, lambda: client().abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload))


def abort_unfinished(uri: str) -> int:
    """Take back every unfinished upload below `uri`, left by processes that died; returns how many there were.

    A store that cannot list them (some cannot) has a rule of its own for them, or none: that is no error here.
    """
    bucket, key = split(uri)
    try:
        page = call(uri, lambda: client().list_multipart_uploads(Bucket=bucket, Prefix=f"{key.rstrip('/')}/"))
    except StorageError:
        return 0
    found = page.get("Uploads", [])
    for item in found:
        abort_parts(f"s3://{bucket}/{item['Key']}", item["UploadId"])
    return len(found)


def _size_of(bucket: str, key: str) -> int:
    return client().head_object(Bucket=bucket, Key=key)["ContentLength"]
