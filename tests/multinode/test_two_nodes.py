"""Training on two nodes, whole: the stage's pod, the API server, a TrainJob whose nodes are real, an object store.

[Contract] What comes out is what two ranks on one node make, loss for loss, also when the stage's pod or a node is lost
in between.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llava import storage
from llava.manifest import read_manifest
from llava.multinode.trainjob import job_name
from llava.stages.pretrain import Outputs
from llava.training import launch
from llava.training.checkpoints import list_steps
from llava.training.job import Result
from tests.conftest import TinyWorld
from tests.multinode.api_server import JOBS, NAMESPACE, ApiServer, api_server
from tests.multinode.trainer import Trainer
from tests.s3_server import S3Server
from tests.training.jobs import losses, make_job

pytestmark = pytest.mark.slow

RUN = "run-1"
NAME = job_name("pretrain", RUN)
FIELDS: dict[str, Any] = {"max_steps": 40, "save_every_steps": 2}
PATIENCE_S = 300.0
SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture(scope="module")
def one_node(tiny_recipe: Path, tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Two ranks on one node, everything on disk."""
    job = make_job("pretrain", tiny_recipe, tiny_world, tmp_path_factory.mktemp("one-node"), **FIELDS)
    return launch.launch(job, 2)


class Cluster:
    """An API server with real nodes, a store that holds the data, and pods of the pretrain stage."""

    def __init__(self, server: ApiServer, store: S3Server, recipe: Path, folder: Path) -> None:
        self.server, self.store, self.recipe, self.folder = server, store, recipe, folder
        self.trainer = Trainer(server, folder / "nodes", {"llava-storage": store.environment})
        self.out = f"{store.uri}/runs/llava-full/{RUN}/pretrain/5a17"
        self.pods: list[subprocess.Popen[bytes]] = []

    def start_stage(self, uid: str) -> subprocess.Popen[bytes]:
        """A pod of the stage, as Argo starts one for each attempt; its log is in the file of its uid."""
        name = f"pretrain-{uid}"
        own_keys = [
            {"name": key, "valueFrom": {"secretKeyRef": {"name": "llava-storage", "key": key}}} for key in SECRET_KEYS
        ]
        others = [
            {"name": key, "valueFrom": {"configMapKeyRef": {"name": "llava-storage", "key": key}}}
            for key in self.store.environment
            if key not in SECRET_KEYS
        ]
        env = [*own_keys, *others, {"name": "KFP_POD_UID", "value": uid}]
        self.server.pods[name] = {
            "metadata": {"name": name, "uid": uid},
            "spec": {"serviceAccountName": "llava-runner", "containers": [{"name": "main", "env": env}]},
        }
        settings = {
            "recipe": str(self.recipe),
            "images_uri": f"{self.store.uri}/world",
            "overrides": json.dumps({f"pretrain.{key}": value for key, value in {**FIELDS, "nodes": 2}.items()}),
            "processes": "1",
            "threads_per_process": 1,
        }
        asked = {
            "inputs": {
                "parameterValues": settings,
                "artifacts": {"data": {"artifacts": [{"name": "data", "uri": f"{self.store.uri}/rows.json"}]}},
            },
            "outputs": {
                "artifacts": {
                    slot: {"artifacts": [{"name": slot, "uri": f"{self.out}/{slot}"}]} for slot in Outputs.model_fields
                },
                "outputFile": str(self.folder / f"{uid}.json"),
            },
        }
        environment = {
            **os.environ,
            **self.store.environment,
            "LLAVA_NO_LAUNCHER": "1",
            "LLAVA_KUBERNETES_API": self.server.url,
            "LLAVA_NAMESPACE": NAMESPACE,
            "LLAVA_IMAGE": "registry.example/llava-train@sha256:0",
            "LLAVA_RUN": RUN,
            "LLAVA_POD_NAME": name,
            "LLAVA_TRAINJOB_POLL_S": "0.1",
        }
        with self._log(uid).open("wb") as log:
            pod = subprocess.Popen(
                [sys.executable, "-m", "llava.executor", "pretrain", "--executor-input", json.dumps(asked)],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.pods.append(pod)
        return pod

    def said(self, uid: str) -> str:
        """The log of a stage's pod so far."""
        return self._log(uid).read_text()

    def end_of(self, pod: subprocess.Popen[bytes], uid: str, code: int) -> str:
        """Wait for a stage's pod, which must end with `code`; returns its log."""
        assert pod.wait(timeout=PATIENCE_S) == code, f"{self.said(uid)}\n{self.trainer.attempts[-1].all_output()}"
        return self.said(uid)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something is so.

        Raises:
            AssertionError: it did not come, or the stage's pod ended before.
        """
        limit = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.pods[-1].poll() is None, f"the stage ended before {what}"
            assert time.monotonic() < limit, f"{what}: not within {PATIENCE_S:.0f} s"
            time.sleep(0.01)

    def result(self) -> Result:
        """What rank 0 reported, from the store."""
        return Result.model_validate(storage.read_json(f"{self.out}/checkpoints/trainjob/result.json"))

    def _log(self, uid: str) -> Path:
        return self.folder / f"{uid}.log"


@pytest.fixture
def cluster(tiny_recipe: Path, tiny_world: TinyWorld, moto_s3: S3Server, tmp_path: Path) -> Iterator[Cluster]:
    storage.upload(tiny_world.root / "train2017", f"{moto_s3.uri}/world/train2017")
    storage.upload(tiny_world.pretrain_json, f"{moto_s3.uri}/rows.json")
    with _running(tiny_recipe, moto_s3, tmp_path) as running:
        yield running


@contextmanager
def _running(recipe: Path, store: S3Server, folder: Path) -> Iterator[Cluster]:
    with api_server() as server:
        cluster = Cluster(server, store, recipe, folder)
        try:
            yield cluster
        finally:
            for pod in cluster.pods:
                if pod.poll() is None:
                    pod.kill()
                    pod.wait()
            cluster.trainer.close()


def test_a_retried_stage_adopts_the_job_and_finds_its_result(cluster: Cluster, one_node: Result) -> None:
    first = cluster.start_stage("uid-1")
    cluster.until(lambda: cluster.server.jobs, "the TrainJob was made")
    first.kill()
    first.wait()
    second = cluster.start_stage("uid-2")
    said = cluster.end_of(second, "uid-2", 0)

    assert f"trainjob  {NAME}: adopted from an earlier attempt" in said
    assert f"trainjob  {NAME}: complete" in said
    assert len(cluster.trainer.attempts) == 1 and not cluster.server.asked("DELETE")
    assert cluster.server.only_job()["metadata"]["ownerReferences"][0]["uid"] == "uid-2"
    # The log of node 0 is this pod's log: its user sees training continue.
    assert "step 40/40" in said

    result = cluster.result()
    assert (result.world_size, result.steps, result.resumed_from) == (2, 40, None)
    assert losses(result) == losses(one_node)
    manifest = read_manifest(f"{cluster.out}/projector")
    assert manifest.kind == "projector" and manifest.extra["world_size"] == 2
    assert "projector.safetensors" in manifest.files
    assert manifest.numbers["final_loss"] == one_node.numbers["final_loss"]
    assert storage.read_text(f"{cluster.out}/report").startswith("<!doctype html>")
    assert storage.read_json(f"{cluster.out}/llava-outputs.json")["outputs"]["projector"] == f"{cluster.out}/projector"
    assert storage.read_json(f"{cluster.out}/metrics")["steps"] == 40


def test_a_lost_node_fails_the_job_and_a_retry_goes_on_from_its_checkpoint(cluster: Cluster, one_node: Result) -> None:
    failures = f"{cluster.out}/checkpoints/trainjob/failures"
    first = cluster.start_stage("uid-1")
    cluster.until(lambda: list_steps(f"{cluster.out}/checkpoints"), "there was a checkpoint")
    cluster.trainer.attempts[0].nodes[1].kill()
    said = cluster.end_of(first, "uid-1", 2)
    assert f"pretrain: TrainJob {NAME}: failed: jobset failed: pod {NAME}-node-0-1 ended with -9" in said
    assert "Traceback" not in said
    noticed = [storage.read_json(f"{failures}/{item.path}") for item in storage.list_files(failures)]
    assert all(failure["lost_peer"] for failure in noticed), "what the other node noticed is not the cause"
    saved = list_steps(f"{cluster.out}/checkpoints")[-1]
    assert 0 < saved < FIELDS["max_steps"], "the node was lost in the middle"
    assert not storage.exists(f"{cluster.out}/projector")

    second = cluster.start_stage("uid-2")
    said = cluster.end_of(second, "uid-2", 0)
    assert f"trainjob  {NAME}: an earlier attempt failed; replacing it, training resumes from its checkpoints" in said
    assert f"resuming from the checkpoint of step {saved}" in said
    result = cluster.result()
    assert (result.world_size, result.resumed_from) == (2, saved)
    assert losses(result) == losses(one_node)
    assert read_manifest(f"{cluster.out}/projector").numbers["final_loss"] == one_node.numbers["final_loss"]


def test_a_cancelled_stage_takes_its_nodes_along(cluster: Cluster) -> None:
    pod = cluster.start_stage("uid-1")
    cluster.until(lambda: cluster.server.jobs, "the TrainJob was made")
    pod.terminate()
    said = cluster.end_of(pod, "uid-1", 2)
    assert f"TrainJob {NAME}: stopped and deleted" in said
    assert cluster.server.asked("DELETE") == [f"{JOBS}/{NAME}"] and not cluster.server.jobs
    assert all(node.poll() is not None for node in cluster.trainer.attempts[0].nodes)
