"""Hashes of files of any size. No torch here: the stages use it too."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> tuple[str, int]:
    """SHA-256 in hex and size in bytes of a file of any size."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest, path.stat().st_size
