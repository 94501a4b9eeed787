"""A file system of its own that is soon full, for real: tmpfs, where this user may mount one."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(folder: Path, size: int, files: int = 0) -> Iterator[Path]:
    """A file system of `size` bytes (and `files` files, 0: any number) at `folder`."""
    folder.mkdir(parents=True)
    options = f"size={size}" + (f",nr_inodes={files}" if files else "")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def grow(folder: Path, size: int) -> None:
    """Make room."""
    subprocess.run(["mount", "-o", f"remount,size={size},nr_inodes=0", str(folder)], check=True)


@functools.cache
def may_mount() -> bool:
    """True where a small disk can be had."""
    with tempfile.TemporaryDirectory() as place:
        try:
            with small_disk(Path(place) / "disk", 1 << 20):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False
