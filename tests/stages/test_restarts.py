"""A stage's process that dies through nobody's fault is started again, in its own pod and within bounds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llava import storage
from llava.retrying import Pauses
from llava.stages.restarts import LIMIT
from tests.test_executor import executor_input


def start(tmp_path: Path, fail: str, **environment: str) -> subprocess.Popen[str]:
    """The program a pod runs, on the small stage `learn`."""
    rows = tmp_path / "data"
    rows.write_text('{"rows": [1, 2]}')
    values = {"log": str(tmp_path / "log"), "fail": fail}
    text = json.dumps(executor_input(tmp_path / "task" / "5a17", "learn", values, {"data": str(rows)}))
    command = [sys.executable, "-m", "tests.local.tiny_stages", "learn", "--executor-input", text]
    given = {**os.environ, "LLAVA_RESTART_PAUSE_S": "0.01", "LLAVA_IMAGE": "image@sha256:1", **environment}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=given)


def run(tmp_path: Path, fail: str, **environment: str) -> tuple[int, str]:
    process = start(tmp_path, fail, **environment)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def attempts(tmp_path: Path) -> int:
    return (tmp_path / "log").read_text().splitlines().count("learn")


def metrics(tmp_path: Path) -> dict[str, Any]:
    written = json.loads((tmp_path / "task/5a17/executor_output.json").read_text())
    found: dict[str, Any] = written["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("fail", "why"), [("kill2", "killed by SIGKILL"), ("store", "store did not answer")])
def test_it_is_started_again_and_that_is_counted(fail: str, why: str, tmp_path: Path) -> None:
    code, said = run(tmp_path, fail)
    again = 2 if fail == "kill2" else 1
    assert code == 0 and attempts(tmp_path) == again + 1
    assert metrics(tmp_path)["restarts"] == again
    assert said.count("restart   ") == again and why in said


@pytest.mark.slow
def test_it_is_not_started_for_ever(tmp_path: Path) -> None:
    code, said = run(tmp_path, "kill99")
    assert code == 1 and attempts(tmp_path) == LIMIT + 1
    assert f"it was started again {LIMIT} times, and no more" in said
    assert not (tmp_path / "task/5a17/executor_output.json").exists()


@pytest.mark.parametrize(("fail", "code"), [("user", 2), ("crash", 1)])
def test_what_would_come_back_is_not_started_again(fail: str, code: int, tmp_path: Path) -> None:
    assert run(tmp_path, fail)[0] == code
    assert attempts(tmp_path) == 1


def test_a_pod_that_is_stopped_ends_and_starts_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, "wait")
    deadline = time.monotonic() + 30
    while not (tmp_path / "log").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM and attempts(tmp_path) == 1


def test_pauses_grow_to_a_limit() -> None:
    assert [Pauses(10, 60).before(n) for n in range(5)] == [10, 20, 40, 60, 60]


def notes(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "task").glob("llava-failure-*.json"))


@pytest.mark.slow
def test_a_retry_of_a_users_error_ends_at_once_with_its_message(tmp_path: Path) -> None:
    run(tmp_path, "user", KFP_RETRY_INDEX="0")
    (note,) = notes(tmp_path)
    code, said = run(tmp_path, "user", KFP_RETRY_INDEX="1")
    assert code == 2 and attempts(tmp_path) == 1, "the stage itself was not begun"
    assert "rows.json: row 3: value: found 'x'; expected a number" in said and str(note) in said
    assert len(notes(tmp_path)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "fail"),
    [
        ({"KFP_RETRY_INDEX": "1", "LLAVA_IMAGE": "image@sha256:2"}, "user"),  # another image
        ({"KFP_RETRY_INDEX": "1"}, ""),  # another setting
        ({"KFP_RETRY_INDEX": "0"}, "user"),  # a person pressed Retry
        ({"LLAVA_NO_LAUNCHER": "1"}, "user"),  # on this machine a person is watching
    ],
)
def test_what_may_have_been_put_right_is_tried(environment: dict[str, str], fail: str, tmp_path: Path) -> None:
    run(tmp_path, "user", KFP_RETRY_INDEX="0")
    run(tmp_path, fail, **environment)
    assert attempts(tmp_path) == 2


@pytest.mark.slow
def test_a_backend_that_counts_no_attempts(tmp_path: Path) -> None:
    """kfp 2.14 and 2.15 set no KFP_RETRY_INDEX: a note is of an attempt just before, or of none."""
    run(tmp_path, "user")
    (note,) = notes(tmp_path)
    run(tmp_path, "user")
    assert attempts(tmp_path) == 1
    storage.write_json(str(note), {**storage.read_json(str(note)), "written_unix": time.time() - 7200})
    run(tmp_path, "user")
    assert attempts(tmp_path) == 2


@pytest.mark.slow
@pytest.mark.parametrize("fail", ["crash", "kill1"])
def test_only_a_users_error_is_remembered(fail: str, tmp_path: Path) -> None:
    run(tmp_path, fail)
    assert notes(tmp_path) == []
