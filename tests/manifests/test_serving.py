"""The serving manifests: KServe's schema, and that what `finetune` and `export` write is what they look for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from llava.pipelines.registry import FORMATS
from llava.pipelines.resources import STORAGE_KEYS
from tests.manifests.conftest import MANIFESTS, Resource, render
from tests.manifests.crd_schemas import INFERENCE_SERVICE


@pytest.fixture
def served() -> dict[str, Resource]:
    return {f"{r['kind']}/{r['metadata']['name']}": r for r in render(MANIFESTS / "serving")}


def predictor(served: dict[str, Resource], name: str) -> dict[str, Any]:
    found: dict[str, Any] = served[f"InferenceService/{name}"]["spec"]["predictor"]
    return found


def test_schemas(served: dict[str, Resource]) -> None:
    assert set(served) == {"ServiceAccount/llava-serving", "InferenceService/llava", "InferenceService/llava-encoder"}
    for resource in served.values():
        assert resource["metadata"]["namespace"] == "kubeflow"
        if resource["kind"] == "InferenceService":
            jsonschema.validate(resource["spec"], INFERENCE_SERVICE)
        else:
            kubernetes_validate.validate(resource, "1.35", strict=True)
    wrong = {"predictor": {**predictor(served, "llava"), "storageURI": "x"}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, INFERENCE_SERVICE)


def test_the_formats_are_those_that_are_registered(served: dict[str, Resource]) -> None:
    model = predictor(served, "llava")["model"]
    assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) == FORMATS["model"]
    # KServe maps these two keys of a Secret to the store's credentials (pkg/credentials/s3).
    assert STORAGE_KEYS == ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_triton_finds_the_exported_encoder(precision: str, served: dict[str, Resource], tmp_path: Path) -> None:
    """The container's own script, with a program in Triton's place."""
    onnx_files = pytest.importorskip("llava.export.onnx_files")
    (container,) = predictor(served, "llava-encoder")["containers"]
    models, repository, programs = tmp_path / "mnt", tmp_path / "models", tmp_path / "bin"
    (models / "onnx").mkdir(parents=True)
    name = onnx_files.FILE_NAMES[precision]
    (models / "onnx" / name).write_text("graph")
    (models / "onnx" / f"{name}.data").write_text("weights")
    programs.mkdir()
    (programs / "tritonserver").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (programs / "tritonserver").chmod(0o755)
    (script,) = container["args"]
    script = script.replace("/mnt/models", str(models)).replace("/tmp/models", str(repository))
    suffix = {"fp32": "", "fp16": "_fp16", "int8": "_int8"}[precision]
    assert {entry["name"] for entry in container["env"]} == {"STORAGE_URI", "PRECISION"}
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "PRECISION": suffix}
    ran = subprocess.run([*container["command"], script], env=environment, capture_output=True, text=True, check=True)
    assert f"--model-repository={repository}" in ran.stdout
    version = repository / "vision_encoder" / "1"
    assert (version / "model.onnx").read_text() == "graph"
    assert (version / f"{name}.data").read_text() == "weights", (
        "external data is looked for beside the graph, by its name"
    )
