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
from typing import Any, cast

import pytest
import yaml

import pipeline
from llava import storage, storage_clients
from llava.pipelines.clustertest import pods, suite
from llava.pipelines.clustertest.runs import Runs
from llava.pipelines.commands import main
from llava.training import launch
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
    monkeypatch.setattr("llava.pipelines.clustertest.runs._QUIET_S", 0.05)
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
    _, rows = clustertest("--bucket", f"{bucket.uri}/t", "--probe", "full", "--minutes", "0.1")
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
        f"#!/bin/sh\necho $$ > {tmp_path}/pid; printf '%s ' \"$@\" >> {tmp_path}/asked; echo >> {tmp_path}/asked\n"
        f"echo 'Forwarding from 127.0.0.1:{port} -> 8333'\n"
        f"[ $(wc -l < {tmp_path}/asked) = 1 ] && exec sleep 0.1\n"  # the first one breaks off
        "exec sleep 600\n"
    )
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{kubectl.parent}:{os.environ['PATH']}")
    code, rows = clustertest("--probe", "full")
    assert code == 0 and rows["full"]["verdict"] == "as expected", rows
    first, again, *rest = [line.split() for line in (tmp_path / "asked").read_text().splitlines()]
    assert first == ["-n", "kubeflow", "port-forward", "service/llava-store", ":9000", "--address", "127.0.0.1"]
    assert again == [*first[:4], f"{port}:9000", *first[5:]] and not rest, "at the port that is known by now"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert "AWS_ACCESS_KEY_ID" not in os.environ


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
    code, _ = clustertest("--bucket", f"{bucket.uri}/t", "--probe", "full", "--minutes", "0.1")
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
