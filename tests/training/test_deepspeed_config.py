"""The recipe as a DeepSpeed configuration."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llava.config import TrainRecipe
from llava.training.deepspeed_config import make_config


def config(world_size: int = 2, **fields: Any) -> dict[str, Any]:
    return make_config(TrainRecipe.model_validate({"learning_rate": 1e-3, **fields}), world_size)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_zero_stage_is_taken_over_in_fp32(stage: int) -> None:
    made = config(zero_stage=stage, precision="fp32")
    assert made["zero_optimization"]["stage"] == stage
    assert "bf16" not in made


def test_bf16_keeps_fp32_masters_and_accumulates_in_fp32() -> None:
    made = config(zero_stage=0, precision="bf16")
    assert made["bf16"] == {"enabled": True, "immediate_grad_update": True}
    assert made["data_types"] == {"grad_accum_dtype": "fp32"}
    assert made["zero_optimization"]["stage"] == 1
    assert TrainRecipe(learning_rate=1, precision="bf16", zero_stage=3).effective_zero_stage == 3


def test_offload_is_an_option_where_zero_allows_it() -> None:
    both = {"offload_optimizer": True, "offload_parameters": True}
    assert config(zero_stage=3, **both)["zero_optimization"]["offload_param"]["device"] == "cpu"
    second = config(zero_stage=2, offload_optimizer=True)["zero_optimization"]
    assert second["offload_optimizer"]["device"] == "cpu"
    assert "offload_param" not in second
    assert config(zero_stage=0, offload_optimizer=True)["zero_optimization"]["stage"] == 1  # bf16
    with pytest.raises(
        ValidationError, match="offload_parameters: found true with zero_stage 2; expected zero_stage 3"
    ):
        config(zero_stage=2, **both)
    with pytest.raises(ValidationError, match="offload_optimizer: found true with zero_stage 0 in fp32"):
        config(zero_stage=0, precision="fp32", offload_optimizer=True)


def test_nominal_batch_sizes_are_consistent_for_deepspeed() -> None:
    made = config(world_size=8)
    product = made["train_micro_batch_size_per_gpu"] * made["gradient_accumulation_steps"] * 8
    assert made["train_batch_size"] == product


def test_clipping_is_off_unless_the_recipe_asks_for_it() -> None:
    assert config()["gradient_clipping"] == 0.0
    assert config(max_grad_norm=0.5)["gradient_clipping"] == 0.5
