"""An earlier run's artifacts from the workflow that Kubeflow's API keeps, without its store."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pipeline
from llava.errors import SettingsError, StorageError, UserError
from llava.pipelines.commands import make_app
from llava.pipelines.executions import executions
from tests.pipelines.kfp_server import KfpServer, kfp_server
from tests.s3_server import free_port

ROOT = "s3://llava/pipelines/llava-full/run-a"


def launcher_patch(stage: str, inputs: dict[str, str], outputs: dict[str, str], values: dict[str, Any]) -> str:
    """The pod-spec-patch of a container task, as kfp 2.17's driver writes it (driver.go, initPodSpecPatch)."""

    def side(uris: dict[str, str]) -> dict[str, Any]:
        return {name: {"artifacts": [{"name": name, "uri": uri, "metadata": {}}]} for name, uri in uris.items()}

    executor_input = json.dumps(
        {
            "inputs": {"parameterValues": values, "artifacts": side(inputs)},
            "outputs": {"artifacts": side(outputs), "outputFile": "/tmp/kfp_outputs/output_metadata.json"},
        }
    )
    command = ["/kfp-launcher/launch", "--pipeline_name", "llava-full", "--run_id", "run-a", "--execution_id", "7"]
    command += ["--executor_input", executor_input, "--component_spec", "{}", "--pod_name", "$(KFP_POD_NAME)", "--"]
    arguments = ["python", "-m", "llava.executor", stage, "--executor-input", executor_input]
    return json.dumps({"containers": [{"name": "main", "command": command, "args": arguments, "image": "i"}]})


def node(name: str, kind: str, phase: str, patch: str = "") -> dict[str, Any]:
    """One node of Argo's status."""
    parameters = [{"name": "pod-spec-patch", "value": patch}] if patch else []
    return {"id": name, "displayName": name, "type": kind, "phase": phase, "inputs": {"parameters": parameters}}


def workflow(*, compressed: bool = False) -> str:
    """A run: expand from the cache, pretrain after a lost pod, finetune failed in the middle."""
    data = "s3://llava/pipelines/llava-full/older/expand/77/pretrain_data"
    rows = data.replace("pretrain_data", "instruct_data")
    pretrained = {name: f"{ROOT}/pretrain/1a/{name}" for name in ("projector", "checkpoints", "report", "metrics")}
    tuned = {name: f"{ROOT}/finetune/2b/{name}" for name in ("model", "checkpoints", "report", "metrics")}
    first = launcher_patch("pretrain", {"data": data}, pretrained, {"recipe": "tiny"})
    second = launcher_patch("finetune", {"data": rows, "projector": pretrained["projector"]}, tuned, {"data_uri": ""})
    nodes = [
        node("root-driver", "Pod", "Succeeded"),
        node("pretrain-driver", "Pod", "Succeeded"),
        node("pretrain", "Retry", "Succeeded", first),
        node("pretrain(0)", "Pod", "Error", first),
        node("pretrain(1)", "Pod", "Succeeded", first),
        node("finetune", "Retry", "Failed", second),
        node("finetune(0)", "Pod", "Failed", second),
    ]
    found = {item["id"]: item for item in nodes}
    if compressed:
        packed = base64.b64encode(gzip.compress(json.dumps(found).encode())).decode()
        return json.dumps({"status": {"compressedNodes": packed}})
    return json.dumps({"status": {"phase": "Failed", "nodes": found}})


@pytest.mark.parametrize("compressed", [False, True])
def test_executions_are_read_from_the_launchers_commands(compressed: bool) -> None:
    pretrain, finetune = executions(workflow(compressed=compressed))
    assert (pretrain.stage, pretrain.succeeded) == ("pretrain", True)
    assert pretrain.pods == ("pretrain(0)", "pretrain(1)") and pretrain.outputs["projector"].endswith("/1a/projector")
    assert (finetune.stage, finetune.succeeded) == ("finetune", False)
    assert finetune.inputs["projector"] == pretrain.outputs["projector"]


def test_inputs_given_by_uri_are_known_too() -> None:
    patch = launcher_patch("evaluate", {}, {"predictions": "s3://b/p"}, {"model_uri": "s3://models/mine"})
    manifest = json.dumps({"status": {"nodes": {"a": node("a", "Pod", "Succeeded", patch)}}})
    assert executions(manifest)[0].inputs == {"model": "s3://models/mine"}


@pytest.mark.parametrize("manifest", ["", "{}", "[]", "no JSON", '{"status": {"compressedNodes": "!"}}'])
def test_a_manifest_without_ours_holds_nothing(manifest: str) -> None:
    assert executions(manifest) == []


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    """Kubeflow, and no store that could be reached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("LLAVA_STORAGE_DEADLINE_S", "1")
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with kfp_server() as running:
        parameters = {"recipe": "tiny", "images_uri": "s3://b/images", "evaluate_questions_uri": "s3://b/q"}
        # No root: it was left empty, as the pages advise, and the API returns none then.
        running.runs["run-a"] = {"run_id": "run-a", "state": "FAILED", "runtime_config": {"parameters": parameters}}
        running.workflows["run-a"] = workflow()
        yield running


def call(*arguments: str) -> None:
    make_app(pipeline.build)(list(arguments), standalone_mode=False)


@pytest.mark.slow
def test_rerun_needs_neither_root_nor_store(server: KfpServer) -> None:
    call("rerun", "--run", "run-a", "--from", "finetune", "--resume", "--host", server.url)
    (body,) = server.of("POST", "/runs")
    config = body["runtime_config"]
    assert "pipeline_root" not in config or not config["pipeline_root"], "the launcher's default again"
    sent = config["parameters"]
    assert sent["projector_uri"] == f"{ROOT}/pretrain/1a/projector"
    assert sent["instruct_data_uri"] == "s3://llava/pipelines/llava-full/older/expand/77/instruct_data"
    assert sent["finetune_resume_uri"] == f"{ROOT}/finetune/2b/checkpoints"
    assert sent["evaluate_questions_uri"] == "s3://b/q"


def test_what_a_stage_did_not_finish_is_not_passed_on(server: KfpServer) -> None:
    with pytest.raises(SettingsError, match=r"give --root, or a kubeconfig .* ConfigMap kfp-launcher"):
        call("rerun", "--run", "run-a", "--only", "evaluate", "--host", server.url)
    assert not server.of("POST", "/runs")


def test_the_store_as_a_last_resort_says_how_to_reach_it(server: KfpServer) -> None:
    del server.workflows["run-a"]
    with pytest.raises(StorageError, match=r"run 'run-a': the API does not name .* set AWS_ACCESS_KEY_ID") as caught:
        call("rerun", "--run", "run-a", "--from", "finetune", "--root", "s3://llava/pipelines", "--host", server.url)
    assert "kubectl -n NAMESPACE port-forward" in str(caught.value)


def test_a_local_rerun_names_its_root(server: KfpServer) -> None:
    with pytest.raises(UserError, match="--local: give --root"):
        call("rerun", "--run", "run-a", "--only", "export", "--local")
