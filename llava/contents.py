"""What lies in a folder, by content: hashes of its files, and whether they are what its manifest says.

A bit that flipped on a disk, a file that was cut, weights that were overwritten in place: sizes and names tell of none
of it. So every file is read (about a gigabyte a second and thread); a file whose path, size, modification time and
inode are known from an earlier run is not read again.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llava.errors import SettingsError
from llava.manifest import read_manifest, sha256_of

_BESIDE = ("manifest.json", "README.md", ".gitattributes", "LICENSE", "LICENSE.txt")
_THREADS = 4
_RACY_SECONDS = 2.0  # a file written just now may change again within one tick of the file system's clock


def verified(root: Path, field: str) -> dict[str, str]:
    """SHA-256 of each file below a local folder, compared with the manifest where the folder has one.

    Args:
        field: the setting or input that names the folder, for messages.

    Raises:
        SettingsError: a file is not what the manifest says, or is missing.
    """
    hashes = hashes_of(root)
    if (root / "manifest.json").is_file():
        for path, promised in read_manifest(str(root)).files.items():
            found = hashes.get(path)
            if found != promised and Path(path).name not in _BESIDE:
                what = "is missing" if found is None else f"has sha256 {found[:12]}…"
                raise SettingsError(
                    f"{field}: {root}: {path} {what}; its manifest.json says {promised[:12]}…. The files were damaged "
                    "or changed after they were saved: restore them, or remove manifest.json if it is another model"
                )
    return hashes


def hashes_of(root: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder by relative path, without what only describes the model."""
    paths = sorted(
        path
        for path in root.rglob("*")
        if path.is_file()
        and path.name not in _BESIDE
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    memo = _Memo()
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(memo.hash, paths))
    memo.save()
    return {path.relative_to(root).as_posix(): digest for path, digest in zip(paths, found, strict=True)}


class _Memo:
    """Hashes of files that were read before, in the user's cache folder; without one every file is read."""

    def __init__(self) -> None:
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
        self._path = Path(cache) / "llava" / "file-hashes.json"
        self._known: dict[str, str] = {}
        self._changed = False
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self._path.read_text(encoding="utf-8"))
            if isinstance(known, dict):
                self._known = {key: value for key, value in known.items() if isinstance(value, str)}

    def hash(self, path: Path) -> str:
        """SHA-256 of a file, from memory where nothing about it has changed."""
        path = path.resolve()
        stat = path.stat()
        key = f"{path}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
        if key in self._known:
            return self._known[key]
        digest, _ = sha256_of(path)
        if time.time() - stat.st_mtime > _RACY_SECONDS and path.stat().st_mtime_ns == stat.st_mtime_ns:
            self._known[key] = digest
            self._changed = True
        return digest

    def save(self) -> None:
        """Keep what was learnt, where the cache folder can be written; only the newest entries are kept."""
        if not self._changed:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(dict(list(self._known.items())[-5000:])), encoding="utf-8")
            partial.replace(self._path)
