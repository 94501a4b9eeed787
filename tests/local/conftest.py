"""An artifact root in a real S3 server."""

from __future__ import annotations

import pytest

from tests.s3_server import S3Server


@pytest.fixture
def s3_root(moto_s3: S3Server) -> str:
    """URI of an empty folder in an object store; this process and its children can reach it."""
    return f"{moto_s3.uri}/artifacts"
