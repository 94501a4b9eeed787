"""Starting ranks: how many, how their failures reach the user, how a signal gets through."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from llava import storage
from llava.errors import DataError, SettingsError, StorageError, UserError
from llava.training import launch
from llava.training.checkpoints import list_steps
from llava.training.job import Failure, Job
from tests.conftest import TinyWorld
from tests.training.jobs import make_job


@pytest.fixture
def job(tiny_recipe: Path, tiny_world: TinyWorld, tmp_path: Path) -> Job:
    return make_job("pretrain", tiny_recipe, tiny_world, tmp_path)


def fail(job: Job, rank: int, at: float, kind: str, user: bool = True, lost_peer: bool = False) -> None:
    failure = Failure(
        rank=rank,
        unix_time=at,
        user=user,
        lost_peer=lost_peer,
        error_class=kind,
        message=f"of {rank}",
        traceback="Traceback ...",
    )
    storage.write_json(storage.join(job.failure_uri, f"rank-{rank}.json"), failure.model_dump(mode="json"))


def test_processes() -> None:
    assert launch.process_count("3") == 3 or launch._gpus()
    assert launch.process_count("auto") == max(1, launch._gpus())
    for wrong in ("0", "-1", "two", ""):
        with pytest.raises(SettingsError, match="processes: found"):
            launch.process_count(wrong)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("SettingsError", SettingsError),
        ("DataError", DataError),
        ("StorageError", StorageError),
        ("RowError", UserError),
    ],
)
def test_a_rank_s_error_comes_back_as_it_was(job: Job, kind: str, expected: type[UserError]) -> None:
    fail(job, 0, 1.0, kind)
    error = launch.explain(job, 2)
    assert type(error) is expected
    assert str(error) == "of 0"


def test_the_first_failure_is_the_cause(job: Job) -> None:
    fail(job, 0, 20.0, "RuntimeError", user=False)  # its peer had gone
    fail(job, 1, 10.0, "DataError")
    assert str(launch.explain(job, 2)) == "of 1"


def test_a_lost_connection_is_never_the_cause(job: Job) -> None:
    fail(job, 2, 10.0, "RuntimeError", user=False, lost_peer=True)
    fail(job, 0, 11.0, "DistBackendError", user=False, lost_peer=True)
    error = launch.explain(job, 1)
    assert type(error) is launch.RankLost
    assert "rank 0, 2 lost the connection to another rank" in str(error) and "out of memory" in str(error)
    fail(job, 1, 12.0, "DataError")  # slow to write it down
    assert str(launch.explain(job, 1)) == "of 1"


def test_a_bug_keeps_its_traceback(job: Job) -> None:
    fail(job, 1, 1.0, "KeyError", user=False)
    error = launch.explain(job, 1)
    assert isinstance(error, launch.WorkerCrashed)
    assert "rank 1 failed: KeyError" in str(error)
    assert "Traceback ..." in str(error)


def test_a_silent_death_is_told_as_one(job: Job) -> None:
    assert "killed by SIGKILL" in str(launch.explain(job, -9))
    assert "memory" in str(launch.explain(job, -9))
    assert "code 7" in str(launch.explain(job, 7))


def test_several_nodes_leave_the_rendezvous_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PET_NNODES", "2")
    command = launch._command("job.json", 8)
    assert "llava.training.elastic" in command
    assert "--nproc-per-node=8" in command
    assert not any(part.startswith(("--nnodes", "--master")) for part in command)


@pytest.mark.slow
def test_a_real_worker_s_user_error(job: Job) -> None:
    missing = job.model_copy(update={"data_uri": "/no/such/file.json"})
    with pytest.raises(StorageError, match=r"/no/such/file\.json: no such file"):
        launch.launch(missing, 1)


@pytest.mark.slow
def test_a_run_that_diverges_names_its_rows_and_saves_nothing_after(
    tiny_recipe: Path, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    job = make_job("finetune", tiny_recipe, tiny_world, tmp_path, learning_rate=1e30, projector_learning_rate=1e30)
    with pytest.raises(DataError, match=r"step 2: the loss is nan; its micro-batch held rows .*\(row \d+\)"):
        launch.launch(job, 1)
    assert list_steps(job.checkpoints_uri) == []
    assert not Path(job.output_uri, "manifest.json").exists()


SLEEPER = """
import signal, sys, time, pathlib
mark = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: (mark.write_text("told"), sys.exit(143)))
mark.write_text("ready")
time.sleep(60)
"""


def test_sigterm_is_passed_on(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, str(mark)])

    def tell() -> None:
        while not (mark.exists() and mark.read_text() == "ready"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell, daemon=True).start()
    before = signal.getsignal(signal.SIGTERM)
    with launch._passing_on_signals(process) as received:
        assert process.wait(timeout=30) == 143
    assert received == [signal.SIGTERM]
    assert mark.read_text() == "told"
    assert signal.getsignal(signal.SIGTERM) is before


PARENT = """
import subprocess, sys, time
child = "import sys, time; from llava.processes import die_with_parent; die_with_parent(); "
child += "print('ready', flush=True); time.sleep(60)"
process = subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
print(process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_ranks_end_with_a_killed_parent() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert parent.stdout is not None
    said = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
    child = psutil.Process(int((said - {"ready"}).pop()))
    parent.kill()
    parent.wait()
    child.wait(timeout=20)
    assert not child.is_running()
