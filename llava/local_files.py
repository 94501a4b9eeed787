"""The local half of `llava.storage`: regular files only, written whole or not at all, names that stay in their folder.

Callers use `llava.storage`. Functions raise OSError (ValueError for a name that no file can have); `explain` says it in
words a person can act on.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from llava.errors import StorageError

TEMPORARY = ".llava-partial-"
"""How the name of a file or folder begins that is still being written; listings do not show it, no reader takes it."""

_LEFT_OVER_S = 24 * 3600.0  # older than any write that still goes on


def is_temporary(path: Path) -> bool:
    """True for a file that somebody is writing, or was when they died; also for one in such a folder.

    Args:
        path: relative to the folder that is listed.
    """
    return any(part.startswith(TEMPORARY) for part in path.parts)


def below(folder: Path, name: str) -> Path:
    """`folder / name`, for a name that came from outside: a listing, an archive, a manifest.

    Raises:
        StorageError: the name would lead out of `folder`, or no file can have it.
    """
    parts = name.split("/")
    bad = not name or "\0" in name or "\\" in name or any(part in ("", ".", "..") for part in parts)
    if bad or len(os.fsencode(name.encode("utf-8", "replace").decode())) > 4000:
        raise StorageError(
            f"{name[:200]!a}: not a name for a file below {folder}; expected a relative path without empty parts, "
            "'.', '..' or backslashes"
        )
    return folder.joinpath(*parts)


def read(path: Path, start: int = 0, length: int = -1) -> bytes:
    """Bytes of a regular file. A FIFO would block for ever and a device never end, so both are refused."""
    with open_regular(path) as file:
        if start:
            file.seek(start)
        return file.read(length)


def replace(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Let `write` fill a file that takes `path`'s place when it is whole and durable; the folder is made and synced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _collect(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{TEMPORARY}{path.name[:100]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        put_in_place(Path(temporary), path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A temporary folder on the same disk as `path`, for what will be put there file by file; gone in the end.

    What earlier writers of `path` left when they were killed goes first: it may be as large as a model, and whoever
    writes now is the only one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    start = f"{TEMPORARY}{path.name[:100]}-folder."
    for left in path.parent.glob(f"{glob.escape(start)}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=start, dir=path.parent) as folder:
        yield Path(folder)


def put_in_place(temporary: Path, path: Path, *, durable: bool = False) -> None:
    """Give a temporary file its name, and the mode that a file made in the ordinary way has.

    Args:
        durable: its bytes are on the disk before it has its name; sync the folder when all files are there.
    """
    if durable:
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
    os.chmod(temporary, 0o666 & ~_umask())
    os.replace(temporary, path)


def copy(source: Path, target: Path) -> None:
    """Copy a file, or every file of a folder, each whole or not at all; symbolic links are followed."""
    if source.resolve() == target.resolve():
        return
    if not source.is_dir():
        with open_regular(source) as file:
            replace(target, lambda out: shutil.copyfileobj(file, out, 4 << 20))
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        if path.is_file() and not is_temporary(path.relative_to(source)):
            copy(path, target / path.relative_to(source))


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable; a file system without that (some network mounts) is left alone."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def explain(error: OSError, path: Path, need: int = 0) -> str:
    """What went wrong, and for a full disk how much was needed and how much there is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = free_bytes(path)
        wanted = f"{need / 1e9:,.3f} GB to write, " if need else ""
        return f"the disk is full: {wanted}{free / 1e9:,.3f} GB free at {path.parent}; free some, or name another place"
    return error.strerror or str(error)


def bytes_below(path: Path) -> int:
    """Size of a file, or of all files of a folder."""
    return sum(p.stat().st_size for p in [path, *path.rglob("*")] if p.is_file())


def free_bytes(path: Path) -> int:
    """Free bytes of the file system that `path` is or will be on; 0 where it cannot be asked."""
    for place in (path, *path.parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return 0


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file to read; a FIFO, a device or a folder is an OSError at once."""
    # O_NONBLOCK: opening a FIFO must not wait for somebody to write to it.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "a folder; expected a file", str(path))
        kind = "a FIFO" if stat.S_ISFIFO(mode) else "a device or socket"
        raise OSError(errno.EINVAL, f"{kind}; expected a regular file", str(path))
    return os.fdopen(handle, "rb")


_collected: set[str] = set()


def _collect(folder: Path) -> None:
    """Remove what writers that died left in `folder` long ago; looked at once a process."""
    if str(folder) in _collected:
        return
    _collected.add(str(folder))
    for path in folder.glob(f"{TEMPORARY}*"):
        try:
            if time.time() - path.stat().st_mtime > _LEFT_OVER_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:
            continue


@functools.cache
def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
