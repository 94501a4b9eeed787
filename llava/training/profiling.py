"""A few steps under torch's profiler: a trace to look into, and a table of what took the time.

The first steps compile and allocate, so the profile begins after them. Only rank 0 profiles: the others do the same.
"""

from __future__ import annotations

import contextlib
import gzip
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from llava import storage
from llava.training.job import Profile, ProfileLine

SKIP = 3
MOST_LINES = 25


class StepProfiler:
    """Profiles `steps` steps of this process, the first `SKIP` of a run left out.

    Args:
        steps: how many; 0: nothing happens.
        uri: folder for the trace.
    """

    def __init__(self, steps: int, uri: str) -> None:
        self.steps, self.uri = steps, uri
        self.result: Profile | None = None
        self._done = 0
        self._profiler: Any = None
        self._stack = contextlib.ExitStack()

    def before_step(self) -> None:
        """Call before each step."""
        if self.steps and self._done == SKIP and self._profiler is None and self.result is None:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(torch.profiler.ProfilerActivity.CUDA)
                torch.cuda.synchronize()
            self._profiler = self._stack.enter_context(torch.profiler.profile(activities=activities))

    def after_step(self) -> None:
        """Call after each step."""
        self._done += 1
        if self._profiler is not None and self._done == SKIP + self.steps:
            self.finish()

    def finish(self) -> None:
        """End a profile that is under way: as many steps as there were."""
        if self._profiler is None:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._stack.close()
        profiler, self._profiler = self._profiler, None
        steps = self._done - SKIP
        trace_uri = storage.join(self.uri, "trace-rank-00000.json.gz")
        with tempfile.TemporaryDirectory(prefix="llava-profile-") as folder:
            plain, packed = Path(folder) / "trace.json", Path(folder) / "trace.json.gz"
            profiler.export_chrome_trace(str(plain))
            with plain.open("rb") as source, gzip.open(packed, "wb", compresslevel=4) as target:
                shutil.copyfileobj(source, target)
            storage.upload(packed, trace_uri)
        self.result = Profile(steps=steps, trace_uri=trace_uri, lines=_lines(profiler, max(1, steps)))


def _lines(profiler: Any, steps: int) -> list[ProfileLine]:
    """Operators by their own time on the device (on the CPU where there is none), a step's average."""
    on_gpu = torch.cuda.is_available()
    rows = []
    for event in profiler.key_averages():
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if own > 0:
            rows.append(
                ProfileLine(
                    name=event.key[:120],
                    calls=event.count / steps,
                    milliseconds=own / 1000 / steps,
                    host_milliseconds=event.self_cpu_time_total / 1000 / steps,
                )
            )
    return sorted(rows, key=lambda row: -row.milliseconds)[:MOST_LINES]
