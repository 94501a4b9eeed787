"""Optimiser groups of a real (tiny) LLaVA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llava.config import ModelRecipe, TrainRecipe
from llava.training.parameter_groups import parameter_groups


@pytest.fixture(scope="module")
def model(tiny_clip_dir: Path, tiny_llama_dir: Path) -> Any:
    from llava.model.build import build_model
    from llava.model.special_tokens import load_tokenizer

    recipe = ModelRecipe(vision_tower=str(tiny_clip_dir), language_model=str(tiny_llama_dir))
    return build_model(recipe, tokenizer=load_tokenizer(str(tiny_llama_dir)))


def groups(model: Any, stage: str, **fields: Any) -> dict[str, dict[str, Any]]:
    from llava.model.freezing import set_trainable

    recipe = TrainRecipe.model_validate({"learning_rate": 1e-3, **fields})
    set_trainable(model, stage, train_tower=recipe.vision_tower_learning_rate is not None)  # type: ignore[arg-type]
    return {group["name"]: group for group in parameter_groups(model, recipe)}


def test_stage_1_has_the_projector_alone(model: Any) -> None:
    made = groups(model, "pretrain")
    assert list(made) == ["projector"]
    assert len(made["projector"]["params"]) == 4


def test_each_part_has_its_own_learning_rate(model: Any) -> None:
    made = groups(model, "finetune", projector_learning_rate=5e-3, vision_tower_learning_rate=1e-4)
    assert {name: group["peak_lr"] for name, group in made.items()} == {
        "projector": 5e-3,
        "language_model": 1e-3,
        "vision_tower": 1e-4,
    }


def test_vectors_are_never_decayed(model: Any) -> None:
    made = groups(model, "finetune", weight_decay=0.1)
    assert set(made) == {"projector", "projector/no_decay", "language_model", "language_model/no_decay"}
    for name, group in made.items():
        plain = name.endswith("no_decay")
        assert group["weight_decay"] == (0.0 if plain else 0.1)
        assert all((parameter.ndim < 2) is plain for parameter in group["params"])


def test_every_trainable_parameter_is_in_exactly_one_group(model: Any) -> None:
    made = groups(model, "finetune", weight_decay=0.1, vision_tower_learning_rate=1e-4)
    listed = [id(parameter) for group in made.values() for parameter in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
