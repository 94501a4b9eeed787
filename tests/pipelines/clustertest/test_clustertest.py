"""The cluster test against a Kubeflow that answers as the real one does, sound and broken, with a real object store."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pipeline
from llava.pipelines.checks.cluster import NotAsked
from llava.pipelines.clustertest import pods
from llava.pipelines.commands import main
from llava.retrying import Pauses
from llava.training import launch
from tests.pipelines.clustertest.harness import clustertest, left_in, tiny_world
from tests.pipelines.clustertest.simulated import NAMESPACE, SimulatedKubeflow
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow

ALL = [
    "full",
    "cache",
    "only-pretrain",
    "from-evaluate",
    "kill-worker",
    "delete-pod",
    "terminate",
    "bad-input",
    "nodes",
]


def test_a_sound_cluster(cluster: SimulatedKubeflow, bucket: S3Server, capsys: pytest.CaptureFixture[str]) -> None:
    code, rows = clustertest("--bucket", f"{bucket.uri}/team", "--nodes", "2")
    assert list(rows) == ALL
    assert {name: row["verdict"] for name, row in rows.items()} == dict.fromkeys(ALL, "as expected"), rows
    assert code == 0
    assert cluster.executed[:4] == [
        ["expand", "pretrain", "finetune", "evaluate", "export"], [], ["pretrain"], ["evaluate", "export"]
    ]  # fmt: skip
    assert "resumed from step 20" in rows["kill-worker"]["seen"] and "in the same pod" in rows["kill-worker"]["seen"]
    assert "2 ranks" in rows["nodes"]["seen"]
    assert rows["full"]["link"] == f"{cluster.url}/#/runs/details/run-1"
    printed = capsys.readouterr().out
    assert "probe" in printed and "9 probes, 0 surprises" in printed
    # Everything it made is gone.
    assert not left_in(bucket) and not cluster.runs and not cluster.experiments and not cluster.pods


def test_what_the_runs_are_given(
    cluster: SimulatedKubeflow, bucket: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.objects[f"/api/v1/namespaces/{NAMESPACE}/configmaps/workflow-controller-configmap"] = {
        "data": {"workflowDefaults": "spec: {templateDefaults: {retryStrategy: {limit: '2', retryPolicy: OnError}}}"}
    }
    clustertest("--bucket", f"{bucket.uri}/team", "--probe", "only-pretrain", "--cpu", "2", "--keep")
    assert "note: retries: the policy in force is OnError: a lost pod is retried" in capsys.readouterr().err
    (full, single) = cluster.of("POST", "/runs")
    root = full["runtime_config"]["pipeline_root"]
    assert root.startswith(f"{bucket.uri}/team/clustertest-") and root.endswith("/runs")
    given = full["runtime_config"]["parameters"]
    assert given["train_accelerators"] == given["evaluate_accelerators"] == "0" and given["train_cpu"] == "2"
    assert json.loads(given["pretrain_overrides"])["pretrain.max_steps"] == 30
    assert full["service_account"] == "llava-runner" and full["experiment_id"] == "experiment-1"
    assert single["runtime_config"]["parameters"]["pretrain_data_uri"].startswith(f"{root}/llava-full/run-1/expand/")
    assert left_in(bucket) and len(cluster.runs) == 2, "--keep"


@pytest.mark.parametrize(
    ("broken", "surprises"),
    [
        ({"cache_works": False, "restarts": False, "recreates": False}, {"cache", "kill-worker", "delete-pod"}),
        ({"resumes": False}, {"kill-worker", "delete-pod"}),
    ],
    ids=lambda value: "-".join(sorted(value)),
)
def test_a_broken_cluster_is_a_surprise(
    broken: dict[str, bool], surprises: set[str], cluster: SimulatedKubeflow, bucket: S3Server
) -> None:
    for name, value in broken.items():
        setattr(cluster, name, value)
    names = ["cache", "kill-worker", "delete-pod"]
    code, rows = clustertest("--bucket", f"{bucket.uri}/t", *(part for name in names for part in ("--probe", name)))
    assert {name for name, row in rows.items() if row["verdict"] == "SURPRISE"} == surprises
    assert code == 1
    assert not left_in(bucket) and not cluster.runs, "removed all the same"


def test_a_terminated_run_whose_pod_goes_on(
    cluster: SimulatedKubeflow, bucket: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llava.pipelines.clustertest.probes._STOP_S", 0.5)
    monkeypatch.setattr("llava.pipelines.clustertest.runs._GONE_S", 0.5)
    cluster.terminates = False
    code, rows = clustertest("--bucket", f"{bucket.uri}/t", "--probe", "terminate")
    assert code == 1 and "pods left: llava-run-2-pretrain-0" in rows["terminate"]["seen"]


def test_the_first_run_fails(cluster: SimulatedKubeflow, bucket: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedKubeflow, "_stage", lambda self, run, *rest: self._task(run, "executor", "FAILED"))
    code, rows = clustertest("--bucket", f"{bucket.uri}/t", "--probe", "cache")
    assert code == 1 and rows["full"]["seen"] == "FAILED, failed: executor; ran: nothing"
    assert rows["cache"]["verdict"] == "not run" and rows["cache"]["seen"] == "no full run succeeded"


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (
            {"containerStatuses": [{"name": "main", "image": "r/llava-train:dev", "imageID": "", "ready": False,
                "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff",
                "message": 'Back-off pulling image "r/llava-train:dev"'}}}]},
            'ImagePullBackOff: Back-off pulling image "r/llava-train:dev"',
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                             "message": "0/2 nodes are available: 2 Insufficient memory."}]},
            "Unschedulable: 0/2 nodes are available: 2 Insufficient memory.",
        ),
    ],
)  # fmt: skip
def test_what_a_pod_waits_for_is_said(
    status: dict[str, Any], why: str, cluster: SimulatedKubeflow, bucket: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(self: SimulatedKubeflow, run: dict[str, Any]) -> None:
        self._pod(run["run_id"], "expand", 0)["status"] = {"phase": "Pending", **status}

    monkeypatch.setattr(SimulatedKubeflow, "_work", waits)
    monkeypatch.setattr("llava.pipelines.clustertest.runs._GONE_S", 0.1)
    _, rows = clustertest("--bucket", f"{bucket.uri}/t", "--probe", "full", "--minutes", "0.02")
    assert f"llava-run-1-expand-0 Pending ({why})" in rows["full"]["seen"]


def test_without_rights_on_pods(
    cluster: SimulatedKubeflow, bucket: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.denied = {"delete pods", "create pods/exec"}
    code, rows = clustertest("--bucket", f"{bucket.uri}/t", "--probe", "kill-worker", "--probe", "delete-pod")
    assert code == 0
    assert rows["kill-worker"]["seen"] == "no right to create pods/exec"
    assert rows["delete-pod"]["seen"] == "no right to delete pods"
    printed = capsys.readouterr()
    assert "note: no right to delete pods in kubeflow" in printed.err
    assert "not run: kill-worker, delete-pod" in printed.out


def test_an_api_server_that_is_away_for_a_moment_is_no_surprise(
    cluster: SimulatedKubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pods, "_PAUSES", Pauses(first=0.01))
    cluster.away = 2
    assert pods.Pods(NAMESPACE).of("run-1") == [] and cluster.away == 0
    monkeypatch.setattr(pods, "_PATIENCE_S", 0.05)
    cluster.away = 100
    with pytest.raises(NotAsked, match="no answer"):
        pods.Pods(NAMESPACE).of("run-1")
    assert 0 < cluster.away < 98, "asked again, and not for ever"


def test_without_rights_on_the_endpoint(
    cluster: SimulatedKubeflow, bucket: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.no_experiments = "User 'me' is not authorized: verb create, experiments.pipelines.kubeflow.org"
    code, rows = clustertest("--bucket", f"{bucket.uri}/t", "--probe", "full")
    assert code == 1
    printed = capsys.readouterr()
    assert "verb create, experiments.pipelines.kubeflow.org" in (printed.err + json.dumps(rows))
    assert not left_in(bucket)


def test_it_asks_before_it_starts(
    cluster: SimulatedKubeflow, bucket: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(pipeline.build, ["clustertest", "--bucket", bucket.uri], tiny_world) == 2
    assert "give --yes" in capsys.readouterr().err and not cluster.of("POST", "/runs")
    assert main(pipeline.build, ["clustertest", "--bucket", bucket.uri, "--probe", "nonsense"], tiny_world) == 2


def test_the_killing_program_finds_a_rank_and_nothing_else(tmp_path: Path) -> None:
    """On a /proc of its own: what launches ranks, what watches over them, and the program itself are left alone."""
    stage = [sys.executable, "-m", "llava.executor", "pretrain"]
    one, several = launch._command("/tmp/job.json", 1), launch._command("/tmp/job.json", 2)
    rank_of_several = [sys.executable, "-u", *several[several.index("-m", 3) :]]
    bystanders = [stage, several, [sys.executable, "-c", pods._KILL]]
    for rank in (one, rank_of_several):
        victim = subprocess.Popen(["sleep", "60"])
        proc = tmp_path / str(victim.pid)
        for number, words in {**{str(2**22 + n): w for n, w in enumerate(bystanders)}, str(victim.pid): rank}.items():
            (proc / number).mkdir(parents=True)
            (proc / number / "cmdline").write_text("\0".join(words) + "\0")
        try:
            program = pods._KILL.replace("/proc", str(proc))
            said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
            assert said == f"killed {victim.pid}\n"
            assert victim.wait(timeout=10) == -signal.SIGKILL
        finally:
            victim.kill()
