"""A folder of cached bytes that never grows past its size: the least recently used files go first."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path


class DiskCache:
    """Bytes by key, for the threads of one process.

    Args:
        max_bytes: upper bound of all files together, and at most half of the free disk; larger values than this are
            not kept at all.
        folder: where; default a temporary folder deleted with the process. The folder is this cache's alone.
    """

    def __init__(self, max_bytes: int, folder: str | None = None) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="llava-images-", dir=folder, ignore_cleanup_errors=True)
        self._folder = Path(self._temporary.name)
        # A pod that fills its node's disk is evicted: leave as much free as is taken.
        self._max_bytes = min(max_bytes, shutil.disk_usage(self._folder).free // 2)
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    @property
    def total_bytes(self) -> int:
        """Bytes held now."""
        return self._total

    def get(self, key: str) -> bytes | None:
        """The bytes, or None."""
        name = _name(key)
        with self._lock:
            if name not in self._sizes:
                self.misses += 1
                return None
            self._sizes.move_to_end(name)
        try:
            data = (self._folder / name).read_bytes()
        except OSError:  # evicted between the look and the read, or the disk lost it
            with self._lock:
                self.misses += 1
            return None
        with self._lock:
            self.hits += 1
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep `data`; a disk that is full makes this a no-op, because the cache is only a convenience."""
        if len(data) > self._max_bytes:
            return
        name = _name(key)
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
            path = Path(file.name)
            try:
                file.write(data)
                file.flush()
            except OSError:
                path.unlink(missing_ok=True)
                return
        evicted: list[str] = []
        with self._lock:
            self._total += len(data) - self._sizes.pop(name, 0)
            self._sizes[name] = len(data)
            path.replace(self._folder / name)
            while self._total > self._max_bytes:
                oldest, size = self._sizes.popitem(last=False)
                self._total -= size
                evicted.append(oldest)
            for old in evicted:
                with contextlib.suppress(FileNotFoundError):
                    (self._folder / old).unlink()


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
