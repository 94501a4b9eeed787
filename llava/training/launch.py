"""Start the ranks of a run, stay with them, and turn their end into a result or one readable error.

One process a GPU (on CPU: as many as asked for). With one process on one node the worker is started directly;
otherwise by torchrun. On several nodes every node runs this with the usual environment variables (`PET_NNODES`,
`PET_NODE_RANK`, `PET_MASTER_ADDR`, `PET_MASTER_PORT`, as Kubeflow Trainer sets them), which torchrun reads itself.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import FrameType

from llava import storage
from llava.errors import (
    DataError,
    SettingsError,
    StoppedError,
    StorageError,
    StoreAwayError,
    TransientError,
    UserError,
)
from llava.node_cache import NODE_CACHE
from llava.processes import starter_environment, yield_idle_cores
from llava.training.job import Failure, Job, Result
from llava.validation import validate

WORKER = "llava.training.worker"
GRACE_S = 30.0
COUNT_S = 300.0  # importing torch from a cold disk


class TrainingStopped(StoppedError):
    """The run was asked to stop (SIGTERM, Ctrl-C). Its checkpoints are complete; a new start resumes from the last."""


class RankLost(TransientError):
    """A rank was ended from outside: no memory left, an evicted pod, a lost node. The checkpoints are complete."""


class WorkerCrashed(RuntimeError):
    """A rank ended without saying why, or with an error that is a bug of ours; its traceback is in the message."""


def process_count(setting: str) -> int:
    """Ranks on this node: a number as it is; `auto`: one a GPU, one where there is none.

    Raises:
        SettingsError: neither a positive number nor `auto`.
    """
    if setting == "auto":
        return max(1, _gpus())
    if not setting.isdigit() or int(setting) < 1:
        raise SettingsError(f"processes: found {setting!r}; expected auto or a number of at least 1")
    gpus = _gpus()
    if gpus and int(setting) > gpus:
        raise SettingsError(
            f"processes: found {setting}; this node has {gpus} GPUs, and every process needs one of its own"
        )
    return int(setting)


def launch(job: Job, processes: int) -> Result:
    """Run `job` to its end.

    Raises:
        UserError: what the ranks reported, as the class they raised.
        TrainingStopped: a signal asked this process to stop; it was passed on.
        RankLost: a rank was killed from outside, and the others noticed.
        WorkerCrashed: a rank died for any other reason.
    """
    with tempfile.TemporaryDirectory(prefix="llava-train-") as scratch:
        path = Path(scratch) / "job.json"
        job.write(str(path))
        environment = _environment(job, processes) | {NODE_CACHE: f"{scratch}/models"}
        process = subprocess.Popen(_command(str(path), processes), env=environment)
        with _passing_on_signals(process) as received:
            code = process.wait()
    if received:
        raise TrainingStopped(
            f"stopped by {signal.Signals(received[0]).name}; "
            "start it again with the same outputs to resume from the last checkpoint"
        )
    if code != 0:
        raise explain(job, code)
    return validate(Result, storage.read_json(job.result_uri), job.result_uri)


def _command(job_path: str, processes: int) -> list[str]:
    if processes == 1 and _nodes() == 1:
        return [sys.executable, "-m", WORKER, job_path]
    torchrun = [sys.executable, "-m", "llava.training.elastic", f"--nproc-per-node={processes}", "--max-restarts=0"]
    if _nodes() == 1:
        torchrun += ["--nnodes=1", "--master-addr=127.0.0.1", f"--master-port={_free_port()}"]
    return [*torchrun, "-m", WORKER, job_path]


def _environment(job: Job, processes: int) -> dict[str, str]:
    environment = {**os.environ, **starter_environment()}
    # Imports of a worker must find this very package, however the stage itself was started.
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(part for part in (root, environment.get("PYTHONPATH", "")) if part)
    yield_idle_cores(environment)
    environment["TOKENIZERS_PARALLELISM"] = "false"
    # Packs differ in size from step to step: segments that can grow keep the GPU's memory whole.
    environment.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    if job.threads_per_process:
        environment["OMP_NUM_THREADS"] = str(job.threads_per_process)
    if processes == 1 and _nodes() == 1:
        environment |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    return environment


def _nodes() -> int:
    return int(os.environ.get("PET_NNODES", "1").split(":")[-1])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@functools.cache
def _gpus() -> int:
    """GPUs that torch sees, counted in a child process: torch stays out of the stage's own, and what it cannot use
    (another maker's, one hidden by CUDA_VISIBLE_DEVICES, a driver too old) does not count.

    Raises:
        SettingsError: torch cannot say.
    """
    try:
        if metadata.version("torch").endswith("+cpu"):
            return 0
    except metadata.PackageNotFoundError as error:
        raise SettingsError(
            "torch is not installed; training needs the extra train (pip install '.[train]')"
        ) from error
    command = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    counted = subprocess.run(command, capture_output=True, text=True, timeout=COUNT_S, check=False)
    last = counted.stdout.strip().splitlines()[-1:] or [""]
    if counted.returncode != 0 or not last[0].isdigit():
        raise SettingsError(f"processes: torch could not count this node's GPUs: {counted.stderr.strip()[-500:]}")
    return int(last[0])


@contextmanager
def _passing_on_signals(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Pass SIGTERM and SIGINT on to `process`, and kill it when it has not ended after a grace time."""
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            timer = threading.Timer(GRACE_S, process.kill)  # does nothing to a process that has ended
            timer.daemon = True
            timer.start()

    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may set handlers; its owner stops us by other means
        return
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    except BaseException:
        process.kill()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def explain(job: Job, code: int) -> Exception:
    """The first failure the ranks of `job` wrote down, as the error it was; without any, what exit `code` says."""
    failures = []
    for item in storage.list_files(job.failure_uri):
        place = storage.join(job.failure_uri, item.path)
        failures.append(validate(Failure, storage.read_json(place), place))
    if not failures:
        if (killer := _killer(code)) is not None:
            hint = " (most often memory ran out: raise the pod's, or lower pack_tokens or micro_batch_size)"
            return RankLost(
                f"training was killed by {killer.name} from outside{hint if killer == signal.SIGKILL else ''}; "
                "start again with the same outputs to resume from the last checkpoint"
            )
        return WorkerCrashed(f"training ended with code {code} without an error of its own; its last lines are above")
    # The first failure is the cause: the other ranks fail because a peer has gone.
    causes = [failure for failure in failures if not failure.lost_peer]
    if not causes:
        ranks = ", ".join(str(failure.rank) for failure in sorted(failures, key=lambda failure: failure.rank))
        return RankLost(
            f"rank {ranks} lost the connection to another rank, which left no word: it was killed from outside (out of "
            "memory, an evicted pod, a lost node); start again with the same outputs to resume from the last checkpoint"
        )
    first = min(causes, key=lambda failure: failure.unix_time)
    if first.user:
        known = (SettingsError, StorageError, DataError, StoreAwayError, TransientError)
        kinds = {kind.__name__: kind for kind in known}
        return kinds.get(first.error_class, UserError)(first.message)
    return WorkerCrashed(f"rank {first.rank} failed: {first.error_class}: {first.message}\n{first.traceback}")


def _killer(code: int) -> signal.Signals | None:
    """The signal that ended a process: Popen says it as a negative code, shells and torchrun as 128 and more."""
    number = -code if code < 0 else code - 128
    return signal.Signals(number) if number in {known.value for known in signal.Signals} else None
