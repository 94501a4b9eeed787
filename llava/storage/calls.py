"""One call to an S3-compatible store: bounded in time, tried again, its errors in our words."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlparse

from llava.errors import StorageError, StoreAwayError
from llava.retrying import Pauses
from llava.storage.bulk import Bulk, Unsuited
from llava.storage.clients import TooManyRequests, bulk_of, client_of
from llava.storage.integrity import Damaged
from llava.storage.watch import SLOWEST, Clock, TooSlow, deadline_s, moved, watched

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

T = TypeVar("T")

_LARGEST_PIECE = 256 << 10
_QUICK_S = 0.05  # a piece that came in less is followed by one twice as large
_PAUSES = Pauses(first=0.5, longest=10.0, spread=0.5)


class Absent(StorageError):
    """No such object, or no such file."""


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of a URI.

    Raises:
        StorageError: it names no bucket.
    """
    parsed = urlparse(uri)
    if not parsed.netloc:
        raise StorageError(f"{uri}: no bucket; expected s3://bucket/key")
    # A query string carries store settings in some Kubeflow artifact URIs; the environment rules here.
    return parsed.netloc, uri.split("://", 1)[1].partition("?")[0].partition("/")[2]


def client() -> S3Client:
    """boto3's client."""
    # A client does not survive a fork: its sockets would be shared.
    return client_of(os.getpid())


def body_of(stream: Any, length: int | None = None) -> bytes:
    """A body, or its first bytes; each piece of it counts for the clock.

    A piece counts when it is there as a whole, so a slow link gets small ones: what comes in a second at the slowest
    rate worth waiting for, and only from a quick one more at a time.
    """
    pieces: list[bytes] = []
    wanted, size = length, SLOWEST
    while wanted is None or wanted > 0:
        began = time.monotonic()
        piece = stream.read(size if wanted is None else min(size, wanted))
        if not piece:
            break
        moved(len(piece))
        pieces.append(piece)
        wanted = None if wanted is None else wanted - len(piece)
        size = min(2 * size, _LARGEST_PIECE) if time.monotonic() - began < _QUICK_S else SLOWEST
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def call(uri: str, plain: Callable[[], T], fast: Callable[[Bulk], T] | None = None, *, size: int = 0) -> T:
    """Try until it works, is refused, or the operation's time is over.

    Args:
        plain: by boto3; its answer and its errors count.
        fast: the same by obstore, taken where it works at once.
        size: bytes to be sent.

    Raises:
        Absent: no such object.
        StorageError: the store refused, or gives damaged bytes.
        StoreAwayError: it did not answer before the deadline.
    """
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
    )
    from urllib3.exceptions import HTTPError

    cause: Exception | None = None
    clock = Clock(size)
    for _ in _PAUSES.attempts(within_s=deadline_s()):
        try:
            if fast is not None and (bulk := bulk_of(os.getpid())) is not None:
                with suppress(Unsuited):
                    return fast(bulk)
            return watched(plain, clock)
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = error.response.get("Error", {}).get("Code", "")
            if status == 404 or code in ("NoSuchKey", "NoSuchBucket", "404"):
                raise Absent(f"{uri}: no such {'bucket' if code == 'NoSuchBucket' else 'object'}") from error
            if 300 <= status < 500 and status not in (408, 409, 429):
                raise StorageError(f"{uri}: the store refused with {status} {code}: {error}") from error
            cause = error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise StorageError(
                f"{uri}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or run under a service account that has them"
            ) from error
        except (ParamValidationError, UnicodeError) as error:  # a name that no object can have
            raise StorageError(f"{uri!a}: no object can have this name: {error}") from error
        except (TooManyRequests, RecursionError) as error:
            raise StorageError(f"{uri}: the store sends its callers in circles: {error}") from error
        except TooSlow as error:
            if _is_damage(cause):
                break
            raise StoreAwayError(f"{uri}: the store did not answer before the deadline: {error}") from error
        except (BotoCoreError, HTTPError, HTTPException, OSError, S3UploadFailedError, Damaged) as error:
            cause = error
        except ValueError as error:  # an endpoint that is no address
            raise StorageError(f"{uri}: {error}") from error
    if _is_damage(cause):
        raise StorageError(f"{uri}: damaged: {cause}") from cause
    raise StoreAwayError(f"{uri}: the store did not answer before the deadline: {cause}") from cause


def _is_damage(cause: Exception | None) -> bool:
    return isinstance(cause, Damaged) or type(cause).__name__ == "FlexibleChecksumError"
