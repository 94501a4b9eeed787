"""Loaded by every Python process of a stage under test: kills it, for real, at a chosen point of a chosen write.

The folder of this file stands first in PYTHONPATH; LLAVA_TEST_FAULT holds what to do, as JSON:
`call` (fsync or replace), `path` (a pattern of the file it is about), `nth` (which of those, counted over all processes
of the stage in the file `counter`), `after` (whether the call is still made), `root` (the pid below which everything is
killed; with `alone` only the process itself) and `fired` (a file that says it happened).
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _ancestors(root: int) -> list[int]:
    """This process and those above it, up to but without `root`."""
    found, pid = [], os.getpid()
    while pid not in (0, 1, root):
        found.append(pid)
        with open(f"/proc/{pid}/stat", "rb") as file:
            pid = int(file.read().rpartition(b")")[2].split()[1])
    return found


def _install(told: dict[str, Any]) -> None:
    pattern = re.compile(told["path"])
    real: dict[str, Callable[..., Any]] = {"fsync": os.fsync, "replace": os.replace}

    def due(name: str) -> bool:
        if not pattern.search(name) or Path(told["fired"]).exists():
            return False
        handle = os.open(told["counter"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, b".")
        count = os.lseek(handle, 0, os.SEEK_CUR)  # where this process's own dot ended
        os.close(handle)
        return bool(count == told["nth"])

    def die(name: str) -> None:
        with open(told["fired"], "w") as file:
            file.write(name)
        for pid in [os.getpid()] if told["alone"] else reversed(_ancestors(told["root"])):
            os.kill(pid, signal.SIGKILL)

    def wrapped(call: str, name: str, *arguments: Any, **options: Any) -> Any:
        now = call == told["call"] and due(name)
        if now and not told["after"]:
            die(name)
        result = real[call](*arguments, **options)
        if now:
            die(name)
        return result

    def fsync(handle: Any) -> None:
        number = handle if isinstance(handle, int) else handle.fileno()
        wrapped("fsync", str(Path(f"/proc/self/fd/{number}").readlink()), handle)

    def replace(source: Any, target: Any, **options: Any) -> None:
        wrapped("replace", os.fspath(target), source, target, **options)

    setattr(os, "fsync", fsync)  # noqa: B010  (an assignment is checked for its type)
    setattr(os, "replace", replace)  # noqa: B010


if "LLAVA_TEST_FAULT" in os.environ:
    _install(json.loads(os.environ["LLAVA_TEST_FAULT"]))
