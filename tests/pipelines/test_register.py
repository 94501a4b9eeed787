"""A model goes into a Model Registry through Kubeflow's own client, against a server that speaks its REST API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

import pipeline
from llava import storage
from llava.errors import SettingsError, UserError
from llava.executor import RECORD_NAME, OutputRecord
from llava.manifest import Manifest, write_manifest
from llava.pipelines.commands import main, make_app
from tests.pipelines.kfp_server import kfp_server
from tests.s3_server import free_port

API = "/api/model_registry/v1"  # of model-registry 0.3.18's own OpenAPI document (mr_openapi)


class Registry:
    """The registry's content, as its REST API gives it."""

    def __init__(self) -> None:
        self.models: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = []
        self.artifacts: list[dict[str, Any]] = []
        self.tokens: set[str] = set()
        self.url = ""

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        route = path.removeprefix(API)
        stamp = {"createTimeSinceEpoch": "1", "lastUpdateTimeSinceEpoch": "1"}
        if (method, route) == ("GET", "/registered_model"):
            return self._first(m for m in self.models if m["name"] == query["name"])
        if (method, route) == ("GET", "/registered_models"):  # how the client sees whether anybody is there
            return 200, {"items": self.models[:1], "nextPageToken": "", "pageSize": 1, "size": len(self.models[:1])}
        if (method, route) == ("POST", "/registered_models"):
            self.models.append({**body, **stamp, "id": str(len(self.models) + 1)})
            return 201, self.models[-1]
        if (method, route) == ("GET", "/model_version"):
            wanted = (query["name"], query["parentResourceId"])
            return self._first(v for v in self.versions if (v["name"], v["registeredModelId"]) == wanted)
        if (method, route) == ("POST", "/model_versions"):
            self.versions.append({**body, **stamp, "id": str(len(self.versions) + 1)})
            return 201, self.versions[-1]
        if method == "POST" and route.endswith("/artifacts"):
            version = route.split("/")[2]
            self.artifacts.append({**body, **stamp, "id": str(len(self.artifacts) + 1), "version": version})
            return 201, {k: v for k, v in self.artifacts[-1].items() if k != "version"}
        if (method, route) == ("GET", "/model_artifact"):
            wanted = (query["name"], query["parentResourceId"])
            found = [a for a in self.artifacts if (a["name"], a["version"]) == wanted]
            return self._first({k: v for k, v in a.items() if k != "version"} for a in found)
        return 501, {"code": "", "message": f"{method} {path}"}

    @staticmethod
    def _first(found: Iterator[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        one = next(iter(found), None)
        return (200, one) if one else (404, {"code": "404", "message": "no such resource"})


@pytest.fixture
def registry() -> Iterator[Registry]:
    state = Registry()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            parsed = urlparse(self.path)
            query = {name: values[0] for name, values in parse_qs(parsed.query).items()}
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            state.tokens.add(self.headers.get("Authorization", ""))
            status, reply = state.answer(self.command, parsed.path, query, body)
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = _serve

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def model(tmp_path: Path) -> str:
    uri = str(tmp_path / "store/llava-full/run-a/finetune/5a17/model")
    storage.write_text(f"{uri}/config.json", "{}")
    manifest = Manifest(
        kind="model", stage="finetune", recipe={"name": "tiny"}, data_hash="ab" * 32,
        parents={"projector": "s3://b/projector"}, numbers={"final_loss": 1.5, "steps": 10.0},
        extra={"vision_tower": "openai/clip"},
    )  # fmt: skip
    write_manifest(uri, manifest)
    return uri


def call(*arguments: str) -> None:
    make_app(pipeline.build)(["register", *arguments], standalone_mode=False)


@pytest.mark.slow
def test_a_model_with_figures_and_parents(
    registry: Registry, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODEL_REGISTRY_TOKEN", "of-me")
    given = ["--registry", registry.url, "--name", "shapes", "--version", "1", "--author", "team", "--model", model]
    call(*given)
    (registered,), (version,), (artifact,) = registry.models, registry.versions, registry.artifacts
    assert registered["name"] == "shapes" and registered["owner"] == "team"
    assert version["name"] == "1" and version["registeredModelId"] == "1" and version["author"] == "team"
    properties = version["customProperties"]
    assert properties["finetune_final_loss"] == {"double_value": 1.5, "metadataType": "MetadataDoubleValue"}
    assert properties["recipe"]["string_value"] == "tiny"
    assert properties["parent_projector"]["string_value"] == "s3://b/projector"
    assert properties["data_sha256"]["string_value"] == "ab" * 32
    assert artifact["uri"] == model and artifact["version"] == "1" and artifact["modelFormatName"] == "vLLM"
    assert registry.tokens == {"Bearer of-me"}
    assert storage.read_json(f"{model}/registered.json") == {"name": "shapes 1", "registry": registry.url}
    assert "registered shapes 1 (model 1)" in capsys.readouterr().out
    call(*given)  # the same again changes nothing
    assert len(registry.versions) == len(registry.artifacts) == 1


@pytest.mark.slow
def test_a_runs_model_with_its_evaluation(registry: Registry, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = model.partition("/llava-full")[0]
    for stage, outputs in (("finetune", {"model": model}), ("evaluate", {"metrics": ""})):
        folder = f"{root}/llava-full/run-a/{stage}/5a17"
        outputs = {name: uri or f"{folder}/{name}" for name, uri in outputs.items()}
        record = OutputRecord(stage=stage, settings={}, inputs={}, outputs=outputs, metrics={"accuracy": 0.75},
                              seconds=1, finished_unix=1)  # fmt: skip
        storage.write_json(f"{folder}/{RECORD_NAME}", record.model_dump())
    for name in ("KF_PIPELINES_TOKEN", "KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    with kfp_server() as server:
        server.runs["run-a"] = {"run_id": "run-a", "state": "SUCCEEDED", "runtime_config": {"pipeline_root": root}}
        call("--registry", registry.url, "--name", "n", "--version", "2", "--run", "run-a", "--host", server.url)
    properties = registry.versions[0]["customProperties"]
    assert properties["evaluate_accuracy"]["double_value"] == 0.75 and properties["run"]["string_value"] == "run-a"


@pytest.mark.slow
def test_a_version_that_names_another_artifact(registry: Registry, model: str, tmp_path: Path) -> None:
    given = ["--registry", registry.url, "--name", "shapes", "--version", "1"]
    call(*given, "--model", model)
    other = str(tmp_path / "other")
    write_manifest(other, Manifest(kind="onnx", stage="export"))
    with pytest.raises(SettingsError, match="shapes 1 is registered already, for .*run-a.*give another version"):
        call(*given, "--model", other)
    assert len(registry.artifacts) == 1 and not storage.exists(f"{other}/registered.json")


def test_a_registry_that_is_down(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    given = ["register", "--registry", address, "--name", "shapes", "--version", "1", "--model", model]
    assert main(pipeline.build, given) == 2
    said = capsys.readouterr().err
    assert "nothing is lost: the model is at " in said
    assert f"python pipeline.py register --registry {address} --name shapes --version 1 --model {model}" in said
    assert storage.exists(f"{model}/config.json") and not storage.exists(f"{model}/registered.json")


def test_what_is_no_model(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished artifact"):
        call("--registry", registry.url, "--name", "n", "--version", "1", "--model", str(tmp_path / "nowhere"))
    write_manifest(str(tmp_path / "p"), Manifest(kind="projector", stage="pretrain"))
    with pytest.raises(SettingsError, match="found a projector; expected model or onnx"):
        call("--registry", registry.url, "--name", "n", "--version", "1", "--model", str(tmp_path / "p"))
    assert not registry.models
