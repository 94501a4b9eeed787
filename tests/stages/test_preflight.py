"""Preflight beyond what the wrong calls show: disk, memory, the hub offline, a store, and what is left to the pod."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llava import storage
from llava.errors import SettingsError
from llava.pipelines.parameters import require_sound_run, typed
from llava.stages.preflight import train
from llava.stages.preflight.check import faults_of
from llava.stages.stage import load_stage
from llava.suggestions import meant, near
from tests.s3_server import S3Server


def settings_of(stage: str, **given: Any) -> Any:
    return load_stage(stage).settings.model_validate(given)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    row = {"id": "1", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    return str(tmp_path / "rows.json")


def test_sound_settings_have_no_fault(rows: str, tmp_path: Path) -> None:
    outputs = {"projector": str(tmp_path / "p"), "checkpoints": str(tmp_path / "c")}
    assert faults_of("pretrain", settings_of("pretrain"), {"data": rows}, outputs) == []


def test_a_model_that_fits_neither_memory_nor_disk(rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file of 14 GB stands for 7 billion parameters in bfloat16: 16 bytes each while AdamW trains them."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 4096, "dtype": "bfloat16"}))
    with (model / "model.safetensors").open("wb") as file:
        file.truncate(14_000_000_000)
    facts = {"projector": "mlp2x_gelu", "text_width": 4096}
    (tmp_path / "projector").mkdir()
    (tmp_path / "projector/projector_config.json").write_text(json.dumps(facts))
    settings = settings_of("finetune", language_model=str(model))
    inputs = {"data": rows, "projector": str(tmp_path / "projector")}
    monkeypatch.setattr(train, "available_bytes", lambda: 24 * 2**30)
    monkeypatch.setattr("pathlib.Path.glob", lambda self, pattern: _no_gpu(self, pattern))
    (fault,) = faults_of("finetune", settings, inputs)
    assert "7.0 billion parameters" in fault and "24 GiB are free" in fault and "lora" in fault
    monkeypatch.setattr(train, "available_bytes", lambda: 2**50)
    free = 100 * 2**30
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free})())
    outputs = {"model": str(tmp_path / "m"), "checkpoints": str(tmp_path / "c")}
    found = faults_of("finetune", settings, inputs, outputs)
    assert len(found) == 1 and found[0].startswith("checkpoints: ") and "100.0 GiB are free" in found[0]


_GLOB = Path.glob


def _no_gpu(path: Path, pattern: str) -> Any:
    return iter(()) if str(path) == "/dev" else _GLOB(path, pattern)


def test_a_hub_model_that_cannot_come_offline(rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    settings = settings_of("pretrain", language_model="owner/model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (fault,) = faults_of("pretrain", settings, {"data": rows})
    assert "owner/model: not in this machine's hub cache" in fault
    (tmp_path / "hub/hub/models--owner--model").mkdir(parents=True)
    assert faults_of("pretrain", settings, {"data": rows}) == []


def test_a_store_is_asked(moto_s3: S3Server, rows: str) -> None:
    settings, data = settings_of("pretrain"), f"{moto_s3.uri}/rows.json"
    (fault,) = faults_of("pretrain", settings, {"data": data})
    assert fault.startswith(f"data: {data}: nothing below it in the store")
    storage.upload(Path(rows), data)
    assert faults_of("pretrain", settings, {"data": data}) == []


def test_of_a_run_elsewhere_only_settings_are_judged() -> None:
    arguments = {
        "expand_annotations_uri": "/volume/annotations",
        "evaluate_questions_uri": "s3://bucket/questions.jsonl",
        "images_uri": "/volume/images",
        "language_model": "/volume/model",
    }
    require_sound_run("full", arguments, here=False)
    with pytest.raises(SettingsError, match="/volume/annotations") as error:
        require_sound_run("full", arguments, here=True)
    assert "/volume/images" in str(error.value) and "/volume/model" in str(error.value)


def test_a_fault_of_both_training_stages_is_said_once() -> None:
    arguments = {"pretrain_data_uri": "a.json", "instruct_data_uri": "a.json", "evaluate_questions_uri": "q.jsonl"}
    with pytest.raises(SettingsError) as error:
        require_sound_run("from-pretrain", arguments | {"recipe": "tinny"}, here=False)
    assert len(str(error.value).splitlines()) == 1


def test_arguments_are_typed_before_a_package_is_compiled() -> None:
    values = typed(
        "only-pretrain",
        {"pretrain_data_uri": "a", "pretrain_profile": "3", "pretrain_overrides": {"pretrain.epochs": 2}},
    )
    assert values["pretrain_profile"] == 3 and json.loads(values["pretrain_overrides"]) == {"pretrain.epochs": 2}


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("recepie", ["recipe", "processes"], ["recipe"]),
        ("annotations", ["expand_annotations_uri", "images_uri"], ["expand_annotations_uri"]),
        ("Max-Cost", ["expand_max_cost"], ["expand_max_cost"]),
        ("zzz", ["recipe"], []),
    ],
)
def test_what_was_meant(name: str, known: list[str], found: list[str]) -> None:
    assert near(name, known) == found


def test_long_lists_are_named_not_shown() -> None:
    known = [f"name{number}" for number in range(80)]
    assert meant("zzz", known, "`x`") == "`x` shows all 80"
    assert meant("zzz", ["a", "b"]) == "known: a, b"


@pytest.mark.parametrize(
    ("field", "config", "said"),
    [
        ("language_model", {"model_type": "gemma2"}, "is a 'gemma2': it caps its logits"),
        ("language_model", {"model_type": "opt"}, "is a 'opt': its positions are learnt"),
        ("vision_tower", {"model_type": "siglip2"}, "variable resolution"),
        ("vision_tower", {"model_type": "resnet"}, "is a 'resnet'; expected a CLIP"),
    ],
)
def test_families_that_cannot_be_are_refused_before_a_row_is_read(
    field: str, config: dict[str, Any], said: str, rows: str, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    settings = settings_of("pretrain", **{field: str(tmp_path / "other")})
    found = faults_of("pretrain", settings, {"data": rows}, {})
    assert len(found) == 1 and said in found[0] and found[0].startswith(f"{field}: ")


def test_a_projector_of_a_siglip_fits_its_recipe(rows: str, tmp_path: Path) -> None:
    """Its configuration says `full` where the recipe says `default`: the same features."""
    from tests.model.tiny_parts import write_siglip

    facts = {"projector": "mlp2x_gelu", "vision_width": 32, "text_width": 128, "vision_feature_layer": -2}
    facts |= {"vision_feature_select_strategy": "full", "architecture": "llava"}
    (tmp_path / "projector").mkdir()
    (tmp_path / "projector" / "projector_config.json").write_text(json.dumps(facts))
    settings = settings_of("finetune", vision_tower=str(write_siglip(tmp_path / "siglip")))
    inputs = {"data": rows, "projector": str(tmp_path / "projector")}
    found = [fault for fault in faults_of("finetune", settings, inputs, {}) if "text_width" not in fault]
    assert found == []
