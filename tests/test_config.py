"""Recipes are validated before anything is paid for, and faults say how to mend them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llava.config import bundled_recipes, load_recipe
from llava.errors import SettingsError, StorageError, UserError

MINIMAL = {
    "name": "mine",
    "model": {"vision_tower": "a", "language_model": "b"},
    "pretrain": {"learning_rate": 1e-3, "template": "plain"},
    "finetune": {"learning_rate": 2e-5},
}


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path


def _change(path: Path, dotted: str, value: object) -> str:
    data = yaml.safe_load(path.read_text())
    *parents, last = dotted.split(".")
    node = data
    for parent in parents:
        node = node[parent]
    node[last] = value
    path.write_text(yaml.safe_dump(data))
    return str(path)


def test_defaults_are_those_of_v1_5(recipe_file: Path) -> None:
    recipe = load_recipe(str(recipe_file))
    assert recipe.model.projector == "mlp2x_gelu" and recipe.model.vision_feature_layer == -2
    assert (
        recipe.finetune.warmup_ratio == 0.03
        and recipe.finetune.weight_decay == 0
        and recipe.finetune.max_length == 2048
    )


def test_overrides_reach_nested_fields(recipe_file: Path) -> None:
    recipe = load_recipe(str(recipe_file), '{"finetune.max_steps": 3, "pretrain.packing": false}')
    assert recipe.finetune.max_steps == 3 and recipe.pretrain.packing is False
    assert load_recipe(str(recipe_file), "").finetune.max_steps is None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "finetune.learning_rat",
            1,
            r"mine.yaml: finetune.learning_rat: unknown field \(value 1\); did you mean learning_rate",
        ),
        ("model.tower", "x", r"model.tower: unknown field .*vision_tower"),
        ("finetune.learning_rate", -1, r"finetune.learning_rate: found -1; Input should be greater than 0"),
        ("model.projector", "mlp0x_gelu", r"model.projector: found 'mlp0x_gelu'"),
        ("finetune.zero_stage", 4, r"finetune.zero_stage: found 4; Input should be 0, 1, 2 or 3"),
        ("finetune.pack_tokens", 100, r"pack_tokens \(100\) must be at least max_length \(2048\)"),
        (
            "pretrain",
            {"learning_rate": 1, "max_length": 9000},
            r"mine.yaml: pretrain: pack_tokens \(8192\) must be at least max_length \(9000\)",
        ),
        ("finetune.lora", {"quantize_4bit": True}, None),
    ],
)
def test_a_faulty_field_is_named_with_value_and_remedy(
    recipe_file: Path, field: str, value: object, message: str | None
) -> None:
    path = _change(recipe_file, field, value)
    if message is None:
        assert load_recipe(path).finetune.lora is not None
        return
    with pytest.raises(SettingsError, match=message):
        load_recipe(path)


def test_tiles_are_not_made_on_the_device(recipe_file: Path) -> None:
    _change(recipe_file, "finetune.device_preprocess", True)
    assert load_recipe(str(recipe_file)).finetune.device_preprocess
    with pytest.raises(
        SettingsError, match=r"finetune.device_preprocess: found true with .*llava_next.*expected false"
    ):
        load_recipe(str(recipe_file), {"model.architecture": "llava_next"})


def test_all_faults_are_told_at_once(recipe_file: Path) -> None:
    _change(recipe_file, "finetune.eps", 0)
    path = _change(recipe_file, "pretrain.seeed", 1)
    with pytest.raises(SettingsError) as caught:
        load_recipe(path)
    assert "finetune.eps" in str(caught.value) and "pretrain.seeed" in str(caught.value)


def test_wrong_names_paths_and_texts(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected one of .*tiny"):
        load_recipe("llava-v9")
    with pytest.raises(StorageError, match="nowhere.yaml: no such file"):
        load_recipe(str(tmp_path / "nowhere.yaml"))
    for text, message in (("a: [", "not YAML"), ("- a", "expected a mapping"), ("", "expected a mapping")):
        path = tmp_path / "broken.yaml"
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            load_recipe(str(path))
    with pytest.raises(SettingsError, match="overrides: not JSON"):
        load_recipe("tiny", "{finetune}")
    with pytest.raises(SettingsError, match="finetune.max_stepz: unknown field"):
        load_recipe("tiny", {"finetune.max_stepz": 1})


@pytest.mark.parametrize("name", sorted(bundled_recipes()))
def test_every_bundled_recipe_loads_under_its_own_name(name: str) -> None:
    assert load_recipe(name).name == name
