"""The learning-rate schedule."""

from __future__ import annotations

import math

import pytest

from llava.config import TrainRecipe
from llava.training.schedule import factor


def recipe(**fields: object) -> TrainRecipe:
    return TrainRecipe.model_validate({"learning_rate": 1.0, **fields})


def test_warm_up_rises_in_equal_parts_and_its_first_step_moves() -> None:
    factors = [factor(step, 100, recipe(warmup_ratio=0.05)) for step in range(6)]
    assert factors[:5] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])
    assert factors[5] == 1.0


def test_cosine_falls_from_one_towards_zero() -> None:
    r = recipe(warmup_ratio=0.0)
    factors = [factor(step, 10, r) for step in range(10)]
    assert factors[0] == 1.0
    assert factors[5] == pytest.approx(0.5)
    assert factors == sorted(factors, reverse=True)
    assert 0 < factors[-1] < 0.03
    assert factors[3] == pytest.approx(0.5 * (1 + math.cos(0.3 * math.pi)))


def test_linear_and_constant() -> None:
    assert [factor(s, 4, recipe(warmup_ratio=0.0, schedule="linear")) for s in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert {factor(s, 4, recipe(warmup_ratio=0.0, schedule="constant")) for s in range(4)} == {1.0}


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("total", [1, 2, 7, 1000])
def test_never_zero_nor_above_the_peak(schedule: str, total: int) -> None:
    r = recipe(schedule=schedule, warmup_ratio=0.03)
    assert all(0 < factor(step, total, r) <= 1 for step in range(total))
