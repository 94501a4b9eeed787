"""The cluster test against a Kubeflow that answers as the real one does, sound and broken, with a real object store."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline
from llava import storage, storage_clients
from llava.pipelines.clustertest.runs import Runs
from llava.pipelines.commands import main
from tests.pipelines.clustertest.simulated import NAMESPACE, SimulatedKubeflow, kubernetes_api
from tests.pipelines.kfp_server import kfp_server
from tests.s3_server import S3Server, moto_server

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


def tiny_world(folder: Path) -> Callable[[str], dict[str, Any]]:
    """A world of two files: nothing reads it here."""
    (folder / "annotations").mkdir()
    (folder / "annotations" / "questions_val.jsonl").write_text("{}\n")
    (folder / "1.jpg").write_bytes(b"x")
    return lambda place: {
        "recipe": "tiny", "images_uri": place, "expand_annotations_uri": f"{place}/annotations",
        "evaluate_benchmark": "custom", "evaluate_questions_uri": f"{place}/annotations/questions_val.jsonl",
    }  # fmt: skip


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with moto_server() as server:
        yield server


@pytest.fixture
def bucket(store: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The module's store, empty; the AWS environment of the test points at it."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    storage_clients.forget_client()
    for place in left_in(store):
        storage.delete(storage.join(store.uri, place))
    yield store
    storage_clients.forget_client()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedKubeflow]:
    monkeypatch.chdir(tmp_path)
    for name in ("KF_PIPELINES_TOKEN", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Runs, "poll_s", 0.05)
    state = SimulatedKubeflow()
    with kfp_server(state), kubernetes_api(state) as kubernetes:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", state.url)
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, kubernetes)))
        state.objects[f"/api/v1/namespaces/{NAMESPACE}"] = {"metadata": {"name": NAMESPACE}}
        yield state


def kubeconfig(folder: Path, server: str) -> Path:
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": "of-me"}}],
    }  # fmt: skip
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def clustertest(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """`pipeline.py clustertest`: its exit status, and the table by probe."""
    out = Path("table.json")
    try:
        code = main(pipeline.build, ["clustertest", "--yes", "--out", str(out), *arguments], tiny_world)
    except SystemExit as error:
        code = int(error.code or 0)
    return code, {row["probe"]: row for row in json.loads(out.read_text())} if out.exists() else {}


def left_in(bucket: S3Server) -> list[str]:
    return [file.path for file in storage.list_files(bucket.uri)]


@pytest.mark.slow
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


def test_what_the_runs_are_given(cluster: SimulatedKubeflow, bucket: S3Server) -> None:
    clustertest("--bucket", f"{bucket.uri}/team", "--probe", "only-pretrain", "--cpu", "2", "--keep")
    (full, single) = cluster.of("POST", "/runs")
    root = full["runtime_config"]["pipeline_root"]
    assert root.startswith(f"{bucket.uri}/team/clustertest-") and root.endswith("/runs")
    given = full["runtime_config"]["parameters"]
    assert given["train_accelerators"] == given["evaluate_accelerators"] == "0" and given["train_cpu"] == "2"
    assert json.loads(given["pretrain_overrides"])["pretrain.max_steps"] == 30
    assert full["service_account"] == "llava-runner" and full["experiment_id"] == "experiment-1"
    assert single["runtime_config"]["parameters"]["pretrain_data_uri"].startswith(f"{root}/llava-full/run-1/expand/")
    assert left_in(bucket) and len(cluster.runs) == 2, "--keep"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "surprises"),
    [
        ({"cache_works": False, "restarts": False, "recreates": False}, {"cache", "kill-worker", "delete-pod"}),
        ({"resumes": False}, {"kill-worker", "delete-pod"}),
    ],
    ids=lambda value: "-".join(value),
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


def test_a_run_that_never_ends(cluster: SimulatedKubeflow, bucket: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedKubeflow, "_work", lambda self, run: None)
    code, rows = clustertest("--bucket", f"{bucket.uri}/t", "--probe", "full", "--minutes", "0.1")
    assert code == 1 and "has not ended after 0 minutes: PENDING" in rows["full"]["seen"]
    assert not cluster.runs


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


def test_without_rights_on_the_endpoint(
    cluster: SimulatedKubeflow, bucket: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.no_experiments = "User 'me' is not authorized: verb create, experiments.pipelines.kubeflow.org"
    code, rows = clustertest("--bucket", f"{bucket.uri}/t", "--probe", "full")
    assert code == 1
    printed = capsys.readouterr()
    assert "verb create, experiments.pipelines.kubeflow.org" in (printed.err + json.dumps(rows))
    assert not left_in(bucket)


def test_without_rights_in_the_bucket(
    cluster: SimulatedKubeflow, bucket: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    code, rows = clustertest("--bucket", "s3://no-such-bucket/t")
    assert code == 2 and not rows and not cluster.runs
    assert "no right, or no way, to write below s3://no-such-bucket/t/clustertest-" in capsys.readouterr().err


def test_it_asks_before_it_starts(
    cluster: SimulatedKubeflow, bucket: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(pipeline.build, ["clustertest", "--bucket", bucket.uri], tiny_world) == 2
    assert "give --yes" in capsys.readouterr().err and not cluster.of("POST", "/runs")
    assert main(pipeline.build, ["clustertest", "--bucket", bucket.uri, "--probe", "nonsense"], tiny_world) == 2


def test_bucket_and_keys_come_from_the_cluster(
    cluster: SimulatedKubeflow, bucket: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing but --host: root, endpoint and keys as the pods have them, a store inside the cluster by port-forward."""
    here = f"/api/v1/namespaces/{NAMESPACE}"
    keys = {name: base64.b64encode(bucket.environment[name].encode()).decode()
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}  # fmt: skip
    providers = {"s3": {"default": {"endpoint": "llava-store.kubeflow.svc.cluster.local:9000", "disableSSL": True}}}
    cluster.objects |= {
        f"{here}/configmaps/kfp-launcher": {
            "data": {"defaultPipelineRoot": f"{bucket.uri}/pipelines", "providers": yaml.safe_dump(providers)}
        },
        f"{here}/configmaps/llava-storage": {"data": {"AWS_REGION": "us-east-1"}},
        f"{here}/secrets/llava-storage": {"data": keys},
    }
    for name in bucket.environment:
        if name not in ("AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED"):
            monkeypatch.delenv(name)
    port = bucket.endpoint.rpartition(":")[2]
    kubectl = tmp_path / "bin" / "kubectl"  # stands where the store itself listens on this machine
    kubectl.parent.mkdir()
    kubectl.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/pid; printf '%s ' \"$@\" > {tmp_path}/asked\n"
        f"echo 'Forwarding from 127.0.0.1:{port} -> 8333'\nexec sleep 600\n"
    )
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{kubectl.parent}:{os.environ['PATH']}")
    code, rows = clustertest("--probe", "full")
    assert code == 0 and rows["full"]["verdict"] == "as expected", rows
    asked = (tmp_path / "asked").read_text().split()
    assert asked == ["-n", "kubeflow", "port-forward", "service/llava-store", ":9000", "--address", "127.0.0.1"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert "AWS_ACCESS_KEY_ID" not in os.environ


def test_no_keys_anywhere(cluster: SimulatedKubeflow, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert clustertest("--bucket", "s3://b/t")[0] == 2
    assert "Secret 'llava-storage' in namespace kubeflow has no keys; set AWS_ACCESS_KEY_ID" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_test_removes_what_it_made(
    number: int, cluster: SimulatedKubeflow, bucket: S3Server, tmp_path: Path
) -> None:
    cluster.patience_s = 60
    checkout = Path(pipeline.__file__).parent
    program = (
        f"import sys; sys.path.insert(0, {str(checkout)!r})\n"
        "import pipeline\nfrom llava.pipelines.commands import main\n"
        "from tests.pipelines.clustertest.test_clustertest import tiny_world\n"
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
