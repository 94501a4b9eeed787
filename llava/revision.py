"""Which commit this code is, where it runs from a source tree.

An image is known by its digest instead: a commit baked in would change every image with every commit.
"""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path


@functools.cache
def revision() -> str:
    """LLAVA_REVISION, else the commit of the source tree (with `-dirty` where files were changed), else empty."""
    said = os.environ.get("LLAVA_REVISION", "")
    root = Path(__file__).resolve().parents[1]
    if said or not (root / ".git").exists():
        return said
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
