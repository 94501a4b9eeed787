"""The promise users rely on: the whole package runs here, and each stage again from what that run left in a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pipeline
from llava import storage
from llava.pipelines.commands import make_app
from llava.pipelines.graph import FLOW, STAGES, plan_package
from tests.conftest import TinyWorld
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow

# What shows that a stage did its work, below its outputs.
MADE = {
    "expand": ("instruct_data", ""),
    "pretrain": ("projector", "projector.safetensors"),
    "finetune": ("model", "config.json"),
    "evaluate": ("predictions", "finetuned.jsonl"),
    "export": ("onnx", "onnx/vision_encoder.onnx"),
}


@pytest.fixture
def parameters(tiny_recipe: Path, tiny_world: TinyWorld) -> dict[str, Any]:
    """Of the full package, as small as they come."""
    return {
        "recipe": tiny_recipe,
        "processes": 1,
        "threads_per_process": 1,
        "images_uri": tiny_world.images_uri,
        "expand_annotations_uri": tiny_world.root / "annotations",
        "expand_image_prefix": "train2017",
        "expand_limit": 24,
        "pretrain_overrides": '{"pretrain.max_steps": 2}',
        "finetune_overrides": '{"finetune.max_steps": 2}',
        "evaluate_benchmark": "custom",
        "evaluate_questions_uri": tiny_world.questions,
        "evaluate_images_uri": tiny_world.images_uri,
        "evaluate_limit": 4,
        "evaluate_max_new_tokens": 4,
        "export_precisions": "fp32",
    }


def test_the_whole_and_then_each_stage_alone(
    parameters: dict[str, Any],
    moto_s3: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    root = f"{moto_s3.uri}/runs"

    def call(*arguments: str) -> tuple[str, dict[str, str]]:
        """A command of `pipeline.py`: the run's id from what it printed, and its outputs from its record."""
        make_app(pipeline.build)([*arguments, "--root", root, "--work", str(tmp_path / "work")], standalone_mode=False)
        said = capsys.readouterr().out.splitlines()
        (run,) = [line.partition("--run ")[2].split()[0] for line in said if line.startswith("again ")]
        outputs = storage.read_json(f"{root}/{run}/run.json")["outputs"]
        return run, {name: output["uri"] for name, output in outputs.items()}

    def pairs(values: dict[str, Any]) -> list[str]:
        return [part for name, value in values.items() for part in ("--param", f"{name}={value}")]

    def ran(run: str) -> list[str]:
        found = storage.read_json(f"{root}/{run}/run.json")["ran"]
        assert isinstance(found, list)
        return found

    whole, outputs = call("run", *pairs(parameters))
    assert sorted(ran(whole)) == sorted(STAGES)
    for name, uri in outputs.items():
        assert uri.startswith(f"{root}/{whole}/") and storage.exists(uri), name

    for stage in STAGES:
        imports = plan_package(f"only-{stage}").imports
        if stage in ("expand", "pretrain", "finetune"):  # by URI
            own = {name: value for name, value in parameters.items() if name.startswith(f"{stage}_")}
            shared = {name: value for name, value in parameters.items() if name in ("recipe", "processes")}
            shared = {} if stage == "expand" else shared
            given = {**own, **shared, "images_uri": parameters["images_uri"]}
            given |= {parameter: outputs[source[1]] for source, parameter in imports.items()}
            run, made = call("run", "--package", f"only-{stage}", "--no-cache", *pairs(given))
        else:  # by the earlier run's id, with its parameters
            run, made = call("rerun", "--local", "--run", whole, "--only", stage, "--no-cache")
        assert run != whole and ran(run) == [stage]
        output, file = MADE[stage]
        assert made[output].startswith(f"{root}/{run}/")
        assert storage.exists(storage.join(made[output], file) if file else made[output])
        record = storage.read_json(f"{made[output].rpartition('/')[0]}/llava-outputs.json")
        assert record["inputs"] == {slot: outputs[source[1]] for slot, source in FLOW[stage].items()}
        if stage == "pretrain":  # the same rows, settings and seed: the same weights, to the byte
            assert storage.read_bytes(f"{made[output]}/{file}") == storage.read_bytes(f"{outputs[output]}/{file}")
