"""A folder that the processes of a node share, and one of them at a time in it.

It lies below `LLAVA_NODE_CACHE`, which whoever starts the ranks sets to a folder of its own; without it, it goes with
the process.
"""

from __future__ import annotations

import fcntl
import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NODE_CACHE = "LLAVA_NODE_CACHE"


def node_cache() -> Path:
    """Where copies for this node go."""
    shared = os.environ.get(NODE_CACHE)
    return Path(shared) if shared else Path(_own_cache().name)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """One process at a time makes what belongs into `folder`; the kernel frees the lock of one that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def _own_cache() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="llava-node-")
