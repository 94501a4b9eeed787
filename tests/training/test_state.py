"""What a run may change when it resumes, and what it may not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from llava.config import TrainRecipe
from llava.errors import SettingsError
from llava.training.job import StepRecord
from llava.training.state import Identity, RunState, check_same, mathematics, weights_fingerprint


def identity(**fields: Any) -> Identity:
    recipe = TrainRecipe.model_validate({"learning_rate": 1e-3, **fields.pop("recipe", {})})
    whole = {"stage": "pretrain", "recipe": mathematics(recipe), "data": "d" * 64, "frozen": "f" * 64, "steps": 10}
    return Identity.model_validate({**whole, **fields})


# Every field of a stage's recipe, on purpose on one side: another value, and whether a run may resume with it.
RESUMES, ANOTHER_RUN = True, False
FIELDS: dict[str, tuple[Any, bool]] = {
    "template": ("plain", ANOTHER_RUN),
    "image_aspect_ratio": ("crop", ANOTHER_RUN),
    "device_preprocess": (True, ANOTHER_RUN),
    "max_length": (1024, ANOTHER_RUN),
    "epochs": (2.0, ANOTHER_RUN),
    "max_steps": (7, ANOTHER_RUN),
    "global_batch_size": (64, ANOTHER_RUN),
    "micro_batch_size": (3, RESUMES),
    "packing": (False, RESUMES),
    "pack_tokens": (4096, RESUMES),
    "pack_images": (8, RESUMES),
    "group_by_modality_length": (True, ANOTHER_RUN),
    "learning_rate": (2e-3, ANOTHER_RUN),
    "projector_learning_rate": (2e-3, ANOTHER_RUN),
    "vision_tower_learning_rate": (1e-6, ANOTHER_RUN),
    "weight_decay": (0.1, ANOTHER_RUN),
    "betas": ((0.9, 0.95), ANOTHER_RUN),
    "eps": (1e-6, ANOTHER_RUN),
    "warmup_ratio": (0.1, ANOTHER_RUN),
    "schedule": ("linear", ANOTHER_RUN),
    "max_grad_norm": (1.0, ANOTHER_RUN),
    "precision": ("fp32", ANOTHER_RUN),
    "zero_stage": (3, RESUMES),
    "offload_optimizer": (True, RESUMES),
    "offload_parameters": ({"zero_stage": 3, "offload_parameters": True}, RESUMES),
    "activation_checkpoint_every_n_layers": (1, RESUMES),
    "compile": (True, RESUMES),
    "kernels": ("liger", RESUMES),
    "lora": ({"r": 8}, ANOTHER_RUN),
    "nodes": (2, RESUMES),
    "seed": (5, ANOTHER_RUN),
    "loader_workers": (0, RESUMES),
    "save_every_steps": (7, RESUMES),
    "keep_checkpoints": (5, RESUMES),
    "log_every_steps": (3, RESUMES),
    "validation_rows": (16, ANOTHER_RUN),
    "validate_every_steps": (9, RESUMES),
    "sample_generations": (1, RESUMES),
    "max_bad_rows": (0.5, RESUMES),
}


def test_every_field_of_a_recipe_is_on_one_side_on_purpose() -> None:
    assert set(FIELDS) == set(TrainRecipe.model_fields), (
        "say of a new field whether a run may resume with another value"
    )


@pytest.mark.parametrize("field", FIELDS)
def test_a_run_resumes_with_another_layout_and_not_with_other_mathematics(field: str) -> None:
    value, resumes = FIELDS[field]
    changed = identity(recipe=value if field in value else {field: value}) if isinstance(value, dict) else None
    changed = changed or identity(recipe={field: value})
    if resumes:
        check_same(identity(), changed, "here")
    else:
        with pytest.raises(SettingsError, match=rf"{field} was .*, now .*outputs folder"):
            check_same(identity(), changed, "here")


def test_a_checkpoint_older_than_a_field_was_made_with_its_default() -> None:
    old = identity()
    del old.recipe["device_preprocess"]
    check_same(old, identity(), "here")
    with pytest.raises(SettingsError, match="device_preprocess was False, now True"):
        check_same(old, identity(recipe={"device_preprocess": True}), "here")


@pytest.mark.parametrize(
    ("field", "value"), [("stage", "finetune"), ("steps", 11), ("data", "e" * 64), ("frozen", "e" * 64)]
)
def test_neither_may_the_rest(field: str, value: Any) -> None:
    with pytest.raises(SettingsError, match="belongs to another run"):
        check_same(identity(), identity(**{field: value}), "here")


def test_every_difference_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        check_same(identity(), identity(steps=11, recipe={"seed": 4, "learning_rate": 1.0}), "s3://b/ck")
    for part in (
        "s3://b/ck",
        "seed was 0, now 4",
        "learning_rate was 0.001, now 1.0",
        "number of steps was 10, now 11",
    ):
        assert part in str(caught.value)


def test_history_is_cut_to_the_checkpoint() -> None:
    records = [StepRecord(step=s, loss=1.0, learning_rate=1.0, tokens=1, padding=0.0) for s in range(1, 6)]
    state = RunState(identity=identity(), history=records)
    state.cut_to(3)
    assert [record.step for record in state.history] == [1, 2, 3]


def test_fingerprint_tells_other_weights_and_names_apart() -> None:
    torch.manual_seed(0)
    last = nn.Linear(40, 5)
    first = nn.Sequential(nn.Linear(30, 40), last)
    before = weights_fingerprint(first)
    assert weights_fingerprint(first) == before
    with torch.no_grad():
        last.weight[0, 0] += 1e-3
    assert weights_fingerprint(first) != before
    assert weights_fingerprint(nn.ModuleDict({"a": first})) != weights_fingerprint(first)
