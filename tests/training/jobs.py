"""Jobs over the tiny world for tests, and ways to run them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from llava import storage
from llava.config import load_recipe
from llava.training import launch
from llava.training.checkpoints import list_steps
from llava.training.job import Job, Result
from tests.conftest import TinyWorld


def make_job(
    stage: str,
    recipe: Path,
    world: TinyWorld,
    out: Path,
    *,
    projector: str = "",
    checkpoints: str = "",
    **overrides: Any,
) -> Job:
    """A job whose outputs lie below `out`; `overrides` are fields of the stage's recipe section."""
    changes = {f"{stage}.{name}": value for name, value in overrides.items()}
    data = world.pretrain_json if stage == "pretrain" else world.instruct_json
    return Job.model_validate(
        {
            "stage": stage,
            "recipe": load_recipe(str(recipe), changes),
            "data_uri": str(data),
            "images_uri": world.images_uri,
            "projector_uri": projector,
            "output_uri": str(out / "output"),
            "checkpoints_uri": checkpoints or str(out / "checkpoints"),
            "result_uri": str(out / "result.json"),
            "failure_uri": str(out / "failures"),
            "threads_per_process": 1,
        }
    )


def losses(result: Result) -> list[float]:
    """The loss of every step."""
    return [record.loss for record in result.history]


def result_of(job: Job) -> Result:
    """What a finished job reported."""
    return Result.model_validate(storage.read_json(job.result_uri))


def weights_of(job: Job) -> dict[str, bytes]:
    """The written weight files, byte by byte."""
    folder = Path(job.output_uri)
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def run_together(jobs: Sequence[Job], processes: int, folder: Path) -> list[Result]:
    """Run several jobs one after the other on the same ranks: imports are paid for once."""
    paths = []
    for number, job in enumerate(jobs):
        paths.append(folder / f"job-{number}.json")
        job.write(str(paths[-1]))
    command = launch._command("JOB", processes)
    at = command.index(launch.WORKER)
    command[at:] = ["tests.training.many_jobs", *map(str, paths)]
    subprocess.run(command, env=launch._environment(jobs[0], processes), check=True, timeout=500)
    return [result_of(job) for job in jobs]


def start(job: Job, processes: int, log: Path) -> subprocess.Popen[bytes]:
    """Start a job's ranks in a process group of their own, every step noted in `log`."""
    path = Path(job.result_uri).with_name("job.json")
    job.write(str(path))
    environment = {**launch._environment(job, processes), "LLAVA_RUN_LOG": str(log)}
    return subprocess.Popen(launch._command(str(path), processes), env=environment)


def kill_after(process: subprocess.Popen[bytes], job: Job, log: Path, step: int, deadline_s: float = 120.0) -> None:
    """kill -9 all ranks as soon as `step` has been logged and there is a checkpoint.

    Raises:
        AssertionError: they ended before, or never got there.
    """
    limit = time.monotonic() + deadline_s
    while step not in logged_steps(log) or not list_steps(job.checkpoints_uri):
        assert process.poll() is None, f"ended with {process.returncode} before step {step}"
        assert time.monotonic() < limit, f"step {step} was never reached"
        time.sleep(0.002)
    # Ranks first: torchrun, were it left a moment, would report their end.
    for rank in [*psutil.Process(process.pid).children(recursive=True), process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(rank.pid, signal.SIGKILL)
    process.wait()


def logged_steps(log: Path) -> list[int]:
    """Steps noted in a run log so far."""
    if not log.exists():
        return []
    lines = log.read_text().splitlines()
    return [json.loads(line)["step"] for line in lines if '"event": "step"' in line and line.endswith("}")]
