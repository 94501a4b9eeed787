"""What a run may change when it resumes, and what it may not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from llava.config import TrainRecipe
from llava.errors import SettingsError
from llava.training.job import StepRecord
from llava.training.state import LAYOUT_FIELDS, Identity, RunState, check_same, mathematics, weights_fingerprint


def identity(**fields: Any) -> Identity:
    recipe = TrainRecipe.model_validate({"learning_rate": 1e-3, **fields.pop("recipe", {})})
    whole = {"stage": "pretrain", "recipe": mathematics(recipe), "data": "d" * 64, "frozen": "f" * 64, "steps": 10}
    return Identity.model_validate({**whole, **fields})


def test_layout_may_change() -> None:
    layout = {"packing": False, "micro_batch_size": 3, "zero_stage": 3, "save_every_steps": 7, "loader_workers": 0}
    check_same(identity(), identity(recipe=layout), "here")


@pytest.mark.parametrize(
    ("field", "value"),
    [("learning_rate", 2e-3), ("seed", 5), ("template", "plain"), ("betas", (0.9, 0.95)), ("device_preprocess", True)],
)
def test_mathematics_may_not(field: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=rf"{field} was .*, now .*outputs folder"):
        check_same(identity(), identity(recipe={field: value}), "here")


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


def test_layout_fields_exist_in_the_recipe() -> None:
    assert set(TrainRecipe.model_fields) >= LAYOUT_FIELDS


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
