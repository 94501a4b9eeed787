"""One attempt at a stage: a real process, a fault, its end; and whether that end is one that was promised."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil  # type: ignore[import-untyped]

from tests.faults.proxy import Rule

HOOKS = Path(__file__).parent / "hooks"
ROOT = Path(__file__).parents[2]
LIMIT_S = 240.0
WORKER = "llava.training.worker"


@dataclass
class Hook:
    """A kill at a point of a write; see `hooks/sitecustomize.py`."""

    call: str
    path: str
    nth: int
    after: bool = False
    alone: bool = False


Watch = Callable[[psutil.Process, Path], bool]
"""Runs beside the stage, given its process and its output folder; True once it has done its harm."""


@dataclass
class Fault:
    """What goes wrong in one attempt.

    Attributes:
        name: as the table shows it.
        rules: for the proxy.
        hook: inside a write.
        watch: from outside.
        full: the disk is, where the attempt writes.
        environment: of the attempt, beside what all have.
        strikes: the fault took place only where the attempt failed and said something that fits.
        needs: what this machine must have; an attempt without it is left out.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None
    watch: Watch | None = None
    full: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    strikes: str = ""
    needs: Literal["", "cgroup"] = ""


@dataclass
class End:
    """How an attempt ended: exit status, what it said, whether the fault took place, what broke a promise."""

    code: int
    said: str
    fired: int
    broken: list[str]

    @property
    def killed(self) -> bool:
        return self.code < 0


def run(
    command: list[str], fault: Fault, out: Path, scratch: Path, environment: dict[str, str],
    on_start: Callable[[Callable[[], None]], None] = lambda kill: None,
) -> End:  # fmt: skip
    """Start `command`, let the fault happen, wait for the end and for every process that it started.

    Args:
        out: where it writes, for watches.
        scratch: an empty folder for what the attempt leaves behind.
        on_start: given what kills the stage, for the proxy.
    """
    scratch.mkdir(parents=True)
    fired, log = scratch / "fired", scratch / "log"
    given = {**os.environ, **environment, **fault.environment, "PYTHONPATH": os.pathsep.join([str(HOOKS), str(ROOT)])}
    if hook := fault.hook:
        told = {**vars(hook), "counter": str(scratch / "counter"), "fired": str(fired), "root": os.getpid()}
        given["LLAVA_TEST_FAULT"] = json.dumps(told)
    with log.open("wb") as file:
        started = subprocess.Popen(command, env=given, stdout=file, stderr=file, cwd=ROOT, start_new_session=True)
    process = psutil.Process(started.pid)
    on_start(lambda: kill_all(process))
    harmed = threading.Event()
    family: dict[int, psutil.Process] = {}

    def beside() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            if fault.watch and fault.watch(process, out):
                harmed.set()

    watching = threading.Thread(target=beside, daemon=True)
    watching.start()
    broken: list[str] = []
    end = time.monotonic() + LIMIT_S
    while started.poll() is None:
        if time.monotonic() > end:
            broken.append(f"did not end within {LIMIT_S:.0f} s")
            kill_all(process)
        with contextlib.suppress(psutil.Error):
            family |= {child.pid: child for child in process.children(recursive=True)}
        time.sleep(0.05)
    watching.join(20)  # it may still be about to say that it struck
    _, alive = psutil.wait_procs(family.values(), timeout=20)
    if alive := [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]:
        broken.append(f"{len(alive)} processes outlived the stage")
        for each in alive:
            each.kill()
    said = log.read_text(errors="replace")
    struck = harmed.is_set() and (
        not fault.strikes or (started.returncode != 0 and bool(re.search(fault.strikes, said)))
    )
    count = sum(rule.fired for rule in fault.rules) + fired.exists() + struck
    return End(started.returncode, said, count, broken)


def kill_all(process: psutil.Process) -> None:
    """kill -9 of a stage and everything below it, as a node that goes down."""
    for each in [process, *children(process)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()


def children(process: psutil.Process) -> list[psutil.Process]:
    """Everything below a process; nothing where it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(process.children(recursive=True))
    return []


def ranks(process: psutil.Process) -> list[psutil.Process]:
    """The training ranks of a stage, in order."""
    found = []
    for child in children(process):
        with contextlib.suppress(psutil.Error):
            words = child.cmdline()
            if WORKER in words and "llava.training.elastic" not in words and "RANK" in child.environ():
                found.append((int(child.environ()["RANK"]), child))
    return [child for _, child in sorted(found, key=lambda pair: pair[0])]


def after(seconds: float, harm: Callable[[psutil.Process], None] = kill_all) -> Watch:
    """Harm so many seconds after the start."""

    def watch(process: psutil.Process, out: Path) -> bool:
        time.sleep(seconds)
        if not lives(process):
            return False
        harm(process)
        return True

    return watch


def lives(process: psutil.Process) -> bool:
    """Whether it has not ended, nor waits to be seen off."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for_files(process: psutil.Process, out: Path, pattern: str, count: int, seconds: float) -> bool:
    """Wait for `count` further files that fit the glob below the output, then `seconds`; False where it ended."""
    before, seen = set(out.glob(pattern)) if pattern else set(), set[Path]()
    while len(seen) < count:
        if not lives(process):
            return False
        seen |= set(out.glob(pattern)) - before
        time.sleep(0.005)
    time.sleep(seconds)
    return lives(process)


def after_files(pattern: str, count: int, seconds: float, harm: Callable[[psutil.Process], None]) -> Watch:
    """Harm `seconds` after `count` files that fit the glob have been made below the output since the start."""

    def watch(process: psutil.Process, out: Path) -> bool:
        if not wait_for_files(process, out, pattern, count, seconds):
            return False
        harm(process)
        return True

    return watch


def kill_rank(number: int) -> Callable[[psutil.Process], None]:
    """kill -9 of one rank alone."""

    def harm(process: psutil.Process) -> None:
        for rank in ranks(process)[number : number + 1]:
            os.kill(rank.pid, signal.SIGKILL)

    return harm


def kill_head(process: psutil.Process) -> None:
    """kill -9 of the stage's own process alone; what it started must notice."""
    process.kill()


def size_of(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
