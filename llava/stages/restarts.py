"""Start a stage's process again after a death that is nobody's mistake: killed, a lost rank, a store that was away.

Kubeflow's launcher ends with status 1 whatever the stage ended with, so nothing outside the pod can tell a wrong
setting from a killed process (KFP 2.17.0), and its stock retry policy, OnError, starts only lost pods again. So the
stage's own pod does it: a small process starts the stage, waits for it and starts it again at most `LIMIT` times. The
stage resumes from what it wrote, as a retried pod does: training from its last checkpoint, an expansion from its
ledger, an evaluation from its answers. On several nodes it is the same: the failed TrainJob is made anew.

What is not started again: an error in a setting, in data or in the program (it would come back), and an end that was
asked for. Where the kernel kills a whole container for its memory (cgroup v2), this process goes with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from llava.processes import starter_environment
from llava.retrying import Pauses

LIMIT = 5
TRANSIENT_EXIT = 75  # EX_TEMPFAIL of sysexits.h
CRASH_EXIT = 1
_HISTORY = "LLAVA_RESTART_REASONS"
_REASON_FILE = "LLAVA_RESTART_REASON_FILE"
_PAUSES = Pauses()
_GRACE_S = 40.0  # above what a stage gives its own ranks to end


def is_supervised() -> bool:
    """Whether this process was started by `supervise`, and its end will be looked at."""
    return _REASON_FILE in os.environ


def reasons_so_far() -> list[str]:
    """Why this stage was started again in this pod, oldest first; empty the first time."""
    found = json.loads(os.environ.get(_HISTORY, "[]"))
    return [str(reason) for reason in found]


def leave_reason(reason: str) -> None:
    """Tell the supervising process why this one is about to end with `TRANSIENT_EXIT`."""
    Path(os.environ[_REASON_FILE]).write_text(reason, encoding="utf-8")


@dataclass
class _Stop:
    """Whether somebody asked for the end, and the process to pass that on to."""

    asked: threading.Event = field(default_factory=threading.Event)
    process: subprocess.Popen[bytes] | None = None

    def pass_on(self, number: int, frame: FrameType | None) -> None:
        self.asked.set()
        process = self.process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            timer = threading.Timer(_GRACE_S, process.kill)
            timer.daemon = True
            timer.start()


def supervise(
    command: Sequence[str],
    *,
    limit: int = LIMIT,
    pauses: Pauses = _PAUSES,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run `command`, and again while its end is transient; returns the exit status of the last attempt.

    Args:
        command: the program; it calls `die_with_parent`, ends with `TRANSIENT_EXIT` after `leave_reason`, and shows
            `reasons_so_far`.
        limit: how often it is started again at most.
        pauses: before each restart.
        environment: of the program; None: this process's.
    """
    stop, reasons = _Stop(), reasons_so_far()
    before = {number: signal.signal(number, stop.pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with tempfile.TemporaryDirectory(prefix="llava-restart-") as scratch:
            note = Path(scratch) / "reason.txt"
            base = {**(os.environ if environment is None else environment), **starter_environment()}
            for attempt in range(limit + 1):
                note.unlink(missing_ok=True)
                given = {**base, _REASON_FILE: str(note), _HISTORY: json.dumps(reasons)}
                began = time.monotonic()
                stop.process = subprocess.Popen(list(command), env=given)
                if stop.asked.is_set():  # it came while the process was being made
                    stop.process.send_signal(signal.SIGTERM)
                code = stop.process.wait()
                reason = _transient_reason(code, note)
                if not reason or stop.asked.is_set():
                    return code if code >= 0 else 128 - code
                after = f"after {time.monotonic() - began:.0f} s"
                if attempt == limit:
                    _say(f"{reason} ({after}); it was started again {limit} times, and no more")
                    return CRASH_EXIT
                reasons.append(reason)
                pause = pauses.before(attempt)
                _say(f"{reason} ({after}); starting it again in {pause:.0f} s, restart {attempt + 1} of {limit}")
                if stop.asked.wait(pause):
                    return 128 + signal.SIGTERM
            raise AssertionError("the last attempt returns")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _transient_reason(code: int, note: Path) -> str:
    """Why an attempt that ended with `code` is worth another; empty when it is not."""
    if code == TRANSIENT_EXIT and note.exists():
        return note.read_text(encoding="utf-8")
    if code < 0 and -code not in (signal.SIGTERM, signal.SIGINT):
        name = signal.Signals(-code).name
        memory = ", most often because the pod ran out of memory" if -code == signal.SIGKILL else ""
        return f"the stage's process was killed by {name}{memory}"
    return ""


def _say(text: str) -> None:
    print(f"restart   {text}", file=sys.stderr, flush=True)
