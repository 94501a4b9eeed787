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


# By hand, from cos^2: warm-up over ceil(0.03 * 70) = 3 steps; then the cosine over the other 67.
GOLDEN = {0: 0.25, 1: 0.5, 2: 0.75, 3: 1.0, 36: 0.5117213, 69: 0.0005495}


def test_golden_values() -> None:
    for step, expected in GOLDEN.items():
        assert factor(step, 70, recipe()) == pytest.approx(expected, abs=1e-7), step


@pytest.mark.parametrize(
    ("total", "ratio", "warmup"), [(7, 0.3, 3), (70, 0.03, 3), (100, 0.05, 5), (5198, 0.03, 156), (10, 0.0, 0)]
)
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_it_is_transformers_schedule_but_for_a_first_step_that_moves(
    total: int, ratio: float, warmup: int, schedule: str
) -> None:
    """As many warm-up steps (its `TrainingArguments` rounds up, too) and the same curve; there, step 0 has rate 0."""
    import torch
    from transformers.optimization import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = get_scheduler(schedule, optimizer, num_warmup_steps=warmup, num_training_steps=total).lr_lambdas[0]
    r = recipe(schedule=schedule, warmup_ratio=ratio)
    for step in range(total):
        expected = theirs(step) if step >= warmup else (step + 1) / (warmup + 1)
        assert factor(step, total, r) == pytest.approx(expected, abs=1e-12), step
