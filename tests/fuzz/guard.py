"""What a case may not do: run for long, take much memory, or write outside its folder."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LONGEST_S = 20
MOST_BYTES = 6 << 30  # of address space, torch and transformers included


class Violation(Exception):
    """A case did what no input may make a reader do."""


_folder: list[str] = []
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _folder:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, (str, bytes)) and isinstance(flags, int) and flags & _WRITES:
            _inside(os.fsdecode(path), "wrote")
    elif event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "shutil.rmtree"):
        if isinstance(arguments[0], (str, bytes)):
            _inside(os.fsdecode(arguments[0]), event)
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class", "ctypes.dlopen"):
        raise Violation(f"{event}: {arguments[:1]!r}")


def _inside(path: str, what: str) -> None:
    allowed = (*_folder, os.devnull, "/dev/shm")
    real = os.path.realpath(path)
    if not any(real == place or real.startswith(f"{place}/") for place in allowed) and "__pycache__" not in real:
        folder, _folder[:] = _folder[:], []  # the report itself may write
        raise Violation(f"{what} {real}, outside {folder}")


def install() -> None:
    """Limit memory and watch from here on; once a process."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    sys.addaudithook(_watch)


@contextmanager
def case(seconds: int = LONGEST_S) -> Iterator[Path]:
    """A fresh folder for one case, with an alarm."""

    def late(number: int, frame: Any) -> None:
        raise Violation(f"still running after {seconds} s")

    with tempfile.TemporaryDirectory(prefix="llava-fuzz-") as folder:
        real = os.path.realpath(folder)
        before = signal.signal(signal.SIGALRM, late)
        signal.alarm(seconds)
        # The user's cache of file hashes and the like must not be written either.
        _folder[:] = [real]
        try:
            yield Path(real)
        finally:
            _folder.clear()
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
