"""Whether bytes are those the store holds: by the entity tag, where it is their MD5.

S3 gives objects that were put in one piece, and are not encrypted with a key of one's own, their MD5 as entity tag.
Most other stores do the same; some give tags that only look like it. So a bucket's tags are believed once one of them
has been right, and where the first one is wrong the object is read again: bytes that differ between two reads are
damaged on their way, bytes that do not show that this bucket's tags are something else.
"""

from __future__ import annotations

import hashlib
import re
from enum import Enum
from typing import Any

_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_tags_are_md5: dict[tuple[str, str], bool] = {}
"""(endpoint, bucket) -> what is known of its tags."""


class Verdict(Enum):
    """What a tag says of bytes."""

    SAME = "same"
    SILENT = "silent"
    SUSPECT = "suspect"
    DAMAGED = "damaged"


class Damaged(Exception):
    """Bytes are not those that the store holds."""


def judge(endpoint: str, bucket: str, tag: str | None, md5: str) -> Verdict:
    """Compare an MD5 with a tag.

    Returns:
        SAME; SILENT: the tag is none that tells; SUSPECT: they differ, and nothing is known of this bucket's tags yet;
        DAMAGED: they differ where tags have been right before.
    """
    place = (endpoint, bucket)
    found = _MD5.fullmatch(tag or "")
    known = _tags_are_md5.get(place)
    if found is None or known is False:
        return Verdict.SILENT
    if found[1] == md5:
        _tags_are_md5[place] = True
        return Verdict.SAME
    return Verdict.DAMAGED if known else Verdict.SUSPECT


def is_md5(tag: str | None) -> bool:
    """True for a tag that may be one."""
    return _MD5.fullmatch(tag or "") is not None


def tags_are_something_else(endpoint: str, bucket: str) -> None:
    """Remember that a bucket's tags say nothing of its objects' bytes."""
    _tags_are_md5[endpoint, bucket] = False


def md5_of(data: bytes | memoryview) -> str:
    """Hexadecimal MD5; against accidents, not against people."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def encrypted(reply: Any) -> bool:
    """True where a reply says that the object is encrypted in a way that makes its tag something else."""
    return str(reply.get("ServerSideEncryption", "")).startswith("aws:kms") or bool(reply.get("SSECustomerAlgorithm"))


def forget() -> None:
    """For tests: nothing is known."""
    _tags_are_md5.clear()
