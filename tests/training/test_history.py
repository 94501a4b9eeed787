"""The memory of a run: bounded, its sums exact, its spikes kept, the same after a resume."""

from __future__ import annotations

import pytest
import torch

from llava.training.history import MOST, remember
from llava.training.job import StepRecord
from llava.training.throughput import Throughput


def record(step: int, loss: float = 2.0, *, spike: bool = False) -> StepRecord:
    return StepRecord(
        step=step, loss=loss, learning_rate=1e-3 / step, tokens=100 + step % 7, padding=0.1, grad_norm=1.0,
        seconds=0.5, data_wait_seconds=0.01, spike=spike,
    )  # fmt: skip


def of_steps(count: int, spikes: tuple[int, ...] = ()) -> list[StepRecord]:
    history: list[StepRecord] = []
    for step in range(1, count + 1):
        remember(history, record(step, 51.0 + step / 1e6 if step in spikes else 2.0, spike=step in spikes))
    return history


def test_every_step_of_an_ordinary_run_is_kept() -> None:
    """LLaVA-1.5's own second stage has 5,198."""
    assert [each.step for each in of_steps(5198)] == list(range(1, 5199))


@pytest.mark.slow
def test_a_long_run_takes_no_more_memory_and_loses_nothing_that_is_summed() -> None:
    count = 100_000
    history = of_steps(count, spikes=(3, 4, 5002, 99_990))
    assert len(history) < MOST
    assert sum(each.tokens for each in history) == sum(100 + step % 7 for step in range(1, count + 1))
    assert sum(each.seconds or 0 for each in history) == pytest.approx(0.5 * count)
    steps = [each.step for each in history]
    assert steps == sorted(set(steps)) and steps[-1] == count
    last = MOST // 5
    assert steps[-last:] == list(range(count - last + 1, count + 1)), "the last ones are whole"
    assert sum(each.steps for each in history) == count
    assert max(each.steps for each in history) <= 64, "the first steps are about as fine as the others"
    # 3 and 4 are neighbours: the louder one stands for both.
    assert [each.step for each in history if each.spike] == [4, 5002, 99_990]
    assert all(each.loss == (pytest.approx(51, abs=0.2) if each.spike else 2.0) for each in history)


def test_figures_of_the_whole_run_count_steps_and_not_records() -> None:
    """Half a second a step, two GFLOP a step, at a peak of a TFLOP/s, by hand."""
    throughput = object.__new__(Throughput)
    throughput.device, throughput.peak = torch.device("cpu"), 1e12
    throughput.step_flops = lambda step: 2e9  # type: ignore[method-assign]
    numbers = throughput.summary(of_steps(20_000))
    assert numbers["step_seconds"] == pytest.approx(0.5)
    assert numbers["mfu"] == pytest.approx(0.004) and numbers["model_tflops_per_second"] == pytest.approx(0.004)
    assert numbers["tokens_per_second"] == pytest.approx(206, abs=0.1)
    assert numbers["padding_share"] == pytest.approx(0.1)


@pytest.mark.slow
def test_a_resumed_run_remembers_the_same() -> None:
    whole = of_steps(30_000, spikes=(7, 12_345))
    resumed = of_steps(17_000, spikes=(7, 12_345))
    for step in range(17_001, 30_001):
        remember(resumed, record(step))
    assert resumed == whole


def test_a_mean_and_a_greatest_norm_stand_for_two_steps() -> None:
    history: list[StepRecord] = []
    for step in range(1, MOST + 1):
        remember(history, record(step, loss=float(step)))
    first = history[0]
    assert (first.step, first.loss, first.tokens, first.seconds) == (2, 1.5, 101 + 102, 1.0)
    assert history[-1] == record(MOST, loss=float(MOST))
