"""Fetching many files at once within what a process may have open."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from llava import storage
from llava.storage import s3
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow


def test_more_files_than_a_process_may_open(tmp_path: Path, moto_s3: S3Server) -> None:
    """A ledger in a store, of a run that was killed, has an object a commit."""
    for number in range(600):
        s3.write(f"{moto_s3.uri}/many/{number:04d}", b"%d" % number)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    try:
        storage.download(f"{moto_s3.uri}/many", tmp_path / "many")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sorted(int(path.read_text()) for path in (tmp_path / "many").iterdir()) == list(range(600))
