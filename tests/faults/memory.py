"""A memory limit that strikes: a control group that the kernel enforces, or a limit of address space where none may be
made (no root)."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from tests.faults import attempts
from tests.faults.attempts import Fault

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
# Small pieces come from the system one by one, so that a limit is met by the next tensor and not after a heap is full.
_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": "4096", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_TOP_PAD_": "0"}
_SAID = "[Cc]an ?not allocate|can't allocate|MemoryError|bad_alloc"
_STEP = 4 << 20


class Group:
    """A control group for memory, of either version; made on entry, gone on exit."""

    def __init__(self) -> None:
        self.v1 = (_V1 / "memory.limit_in_bytes").exists()
        self.place = (_V1 if self.v1 else _V2) / f"llava-faults-{os.getpid()}-{time.monotonic_ns()}"
        self._limit = self.place / ("memory.limit_in_bytes" if self.v1 else "memory.max")
        self._events = self.place / ("memory.oom_control" if self.v1 else "memory.events")
        self._usage = self.place / ("memory.usage_in_bytes" if self.v1 else "memory.current")

    def __enter__(self) -> Group:
        self.place.mkdir()
        if not self._limit.exists():
            self.place.rmdir()
            raise OSError(f"{self.place}: the controller of memory is not enabled there")
        return self

    def __exit__(self, *error: object) -> None:
        for _ in range(100):  # a process that was killed leaves it a moment later
            with contextlib.suppress(OSError):
                self.place.rmdir()
                return
            time.sleep(0.1)

    def add(self, process: psutil.Process) -> None:
        """The process, and whatever it starts from now on."""
        (self.place / "cgroup.procs").write_text(str(process.pid))

    def killed(self) -> int:
        """How many processes the kernel has killed for want of memory."""
        counts = dict(line.split() for line in self._events.read_text().splitlines())
        return int(counts.get("oom_kill", 0))

    def loosen(self) -> None:
        """No limit any more."""
        self._limit.write_text("-1" if self.v1 else "max")

    def tighten(self, process: psutil.Process, seconds: float = 20.0) -> bool:
        """Take away what is not in use, more and more, until the kernel kills; whether it did."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and attempts.lives(process) and not self.killed():
            size = int(self._usage.read_text())
            # Version 1 refuses a limit below what it cannot free, and waits for a page cache to be written.
            for less in (16 * _STEP, 4 * _STEP, _STEP, 0):
                with contextlib.suppress(OSError):
                    self._limit.write_text(str(max(_STEP, size - less)))
                    break
            time.sleep(0.02)
        return self.killed() > 0


def may_group() -> bool:
    """True where a control group for memory can be had."""
    try:
        with Group():
            return True
    except OSError:
        return False


def killed_by_the_kernel(pattern: str, seconds: float = 0.0) -> Fault:
    """No more memory for the whole stage once a further file that fits `pattern` stands below the output (empty: at
    once), and `seconds` later.

    The kernel then kills the process that holds the most, as it does in a pod.
    """

    def watch(process: psutil.Process, out: Path) -> bool:
        with Group() as group:
            group.add(process)
            if not attempts.wait_for_files(process, out, pattern, 1 if pattern else 0, seconds):
                return False
            if not group.tighten(process):
                return False
            group.loosen()  # what is left of the stage may say why it ends
            while attempts.lives(process):
                time.sleep(0.02)
            return True

    return Fault("memory limit (kernel kills)", watch=watch, environment=_ALLOCATION, needs="cgroup")


def refused(pattern: str, seconds: float = 0.0) -> Fault:
    """From then on every rank (or the stage, where it has none) is refused further address space."""

    def watch(process: psutil.Process, out: Path) -> bool:
        if not attempts.wait_for_files(process, out, pattern, 1 if pattern else 0, seconds):
            return False
        for each in attempts.ranks(process) or [process]:
            with contextlib.suppress(psutil.Error):
                size = each.memory_info().vms // 2  # below what it has: every further piece is refused, however small
                each.rlimit(psutil.RLIMIT_AS, (size, size))
        while attempts.lives(process):
            time.sleep(0.02)
        return True

    return Fault("memory limit (refused)", watch=watch, environment=_ALLOCATION, strikes=_SAID)
