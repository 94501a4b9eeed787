"""The clients of an object store, boto3's and obstore's, made once a process from the usual AWS environment."""

from __future__ import annotations

import functools
import os
import threading
from typing import TYPE_CHECKING, Any

from llava.storage import watch
from llava.storage.bulk import Bulk

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_s3.client import S3Client

MOST_REQUESTS = 12  # of one call: its own, a retry of botocore's, redirects to the bucket's region
_making = threading.RLock()  # making a boto3 session or client is not safe from several threads; using a client is


def client_of(process: int) -> S3Client:
    """boto3's client of this process."""
    with _making:
        return _client_of(process)


def bulk_of(process: int) -> Bulk | None:
    """obstore with the same endpoint and credentials; None without any, or where LLAVA_STORAGE_ENGINE is boto3."""
    with _making:
        return _bulk_of(process)


def forget_client() -> None:
    """Look at the environment again: the next call has new credentials and a new endpoint."""
    with _making:
        for made in (_session_of, _client_of, _bulk_of):
            made.cache_clear()


@functools.cache
def _session_of(process: int) -> Session:
    from boto3.session import Session

    # A session of its own: boto3's default one keeps the first credentials it saw.
    return Session()


class TooManyRequests(Exception):
    """One call to the store became a long row of requests: it redirects without end."""


def _count_request(**_: Any) -> None:
    clock = watch.current()
    if clock is not None:
        clock.requests += 1
        if clock.requests > MOST_REQUESTS:
            raise TooManyRequests(f"{MOST_REQUESTS} requests for one call, each answered with a redirect or an error")


@functools.cache
def _client_of(process: int) -> S3Client:
    from botocore.config import Config

    client = _session_of(process).client(
        "s3",
        config=Config(
            # Retrying is `_call`'s, whose deadline botocore does not know: a store that hangs would be waited for
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
    client.meta.events.register("before-send.s3", _count_request)
    return client


@functools.cache
def _bulk_of(process: int) -> Bulk | None:
    if os.environ.get("LLAVA_STORAGE_ENGINE", "") == "boto3" or _session_of(process).get_credentials() is None:
        return None
    meta = _client_of(process).meta
    return Bulk(_session_of(process), meta.endpoint_url, meta.region_name)
