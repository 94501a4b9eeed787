"""Whatever happens, the cluster test removes what it made, and one fault costs one probe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

import pipeline
from llava.pipelines.clustertest import suite
from llava.pipelines.clustertest.runs import Runs
from tests.pipelines.clustertest.harness import clustertest, left_in
from tests.pipelines.clustertest.simulated import SimulatedKubeflow
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow


def test_a_run_that_never_ends(cluster: SimulatedKubeflow, bucket: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedKubeflow, "_work", lambda self, run: None)
    code, rows = clustertest("--bucket", f"{bucket.uri}/t", "--probe", "full", "--minutes", "0.02")
    assert code == 1 and "has not ended after 0 minutes: PENDING" in rows["full"]["seen"]
    assert not cluster.runs


def test_a_run_whose_start_was_not_answered_is_removed_too(cluster: SimulatedKubeflow, bucket: S3Server) -> None:
    cluster.loses_an_answer = True
    code, rows = clustertest("--bucket", f"{bucket.uri}/t", "--probe", "full")
    assert code == 1 and "connection reset" in rows["full"]["seen"]
    assert not cluster.runs and not cluster.experiments and not left_in(bucket)


def test_what_ending_pods_still_write_is_removed_too(
    cluster: SimulatedKubeflow, bucket: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never_ends(self: SimulatedKubeflow, run: dict[str, Any]) -> None:
        self.last_words = run["runtime_config"]["pipeline_root"]
        self._pod(run["run_id"], "expand", 0)

    monkeypatch.setattr(SimulatedKubeflow, "_work", never_ends)
    cluster.ending_s = 1.0
    code, _ = clustertest("--bucket", f"{bucket.uri}/t", "--probe", "full", "--minutes", "0.02")
    assert code == 1 and cluster.late == 1
    assert not left_in(bucket) and not cluster.pods


def test_an_answer_nobody_thought_of_costs_one_probe(
    cluster: SimulatedKubeflow, bucket: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def records(runs: Runs, run: str) -> list[Any]:
        raise KeyError("world_size")

    monkeypatch.setattr(Runs, "records", records)
    code, rows = clustertest("--bucket", f"{bucket.uri}/t", "--probe", "full", "--probe", "cache")
    assert code == 1 and rows["full"]["seen"] == "KeyError: 'world_size'" and rows["cache"]["verdict"] == "not run"
    assert not cluster.runs and not left_in(bucket)


def test_impatience_while_it_removes(cluster: SimulatedKubeflow, bucket: S3Server) -> None:
    """One more Ctrl-C is held back; the one after it ends the removing."""
    before = signal.getsignal(signal.SIGINT)
    said: list[str] = []

    class Bench:
        class runs:  # noqa: N801
            experiment = "e"

            @staticmethod
            def remove(say: Callable[[str], None]) -> list[str]:
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.05)
                return []

    with pytest.raises(KeyboardInterrupt), suite.removing(cast(Any, Bench), f"{bucket.uri}/t", said.append, keep=False):
        pass
    assert [text for text in said if text.startswith("still removing")] and signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_test_removes_what_it_made(
    number: int, cluster: SimulatedKubeflow, bucket: S3Server, tmp_path: Path
) -> None:
    cluster.patience_s = 60
    checkout = Path(pipeline.__file__).parent
    program = (
        f"import sys; sys.path.insert(0, {str(checkout)!r})\n"
        "import pipeline\nfrom llava.pipelines.commands import main\n"
        "from tests.pipelines.clustertest.harness import tiny_world\n"
        "sys.exit(main(pipeline.build, sys.argv[1:], tiny_world))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "clustertest", "--yes", "--bucket", f"{bucket.uri}/t", "--probe", "terminate",
         "--probe", "kill-worker"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    threading.Timer(120, process.kill).start()
    while len(cluster.runs) < 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    said, _ = process.communicate(timeout=100)
    assert process.returncode not in (0, None), said
    assert not cluster.runs and not cluster.experiments and not left_in(bucket), said
    assert "removed" in said
