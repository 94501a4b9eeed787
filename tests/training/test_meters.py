"""Meters: fetching, NaN with its rows, spikes."""

from __future__ import annotations

import math
import time

import pytest
import torch

from llava.training.job import StepRecord
from llava.training.meters import Meter, NotFinite


def meter(history: list[StepRecord] | None = None) -> Meter:
    return Meter(torch.device("cpu"), 0, 1, history if history is not None else [])


def add(
    m: Meter, step: int, losses: list[float], rows: list[list[str]] | None = None, norm: float | None = 1.0
) -> None:
    tensors = [torch.tensor(loss) for loss in losses]
    rows = rows or [[f"row-{step}-{i}"] for i in range(len(losses))]
    m.add(step, tensors, rows, norm, learning_rate=1e-3, tokens=80, places=100, data_wait=0.25)


def test_a_step_is_the_sum_of_its_micro_batches() -> None:
    m = meter()
    add(m, 1, [1.0, 2.0])
    add(m, 2, [0.5])
    records = m.flush()
    assert [record.loss for record in records] == [3.0, 0.5]
    assert [record.step for record in records] == [1, 2]
    assert records[0].padding == pytest.approx(0.2)
    assert (records[0].tokens, records[0].grad_norm, records[0].data_wait_seconds) == (80, 1.0, 0.25)
    assert m.history == records
    assert m.flush() == []


def test_nan_names_the_rows_of_the_first_bad_micro_batch() -> None:
    m = meter()
    add(m, 4, [1.0])
    add(m, 5, [1.0, math.nan], [["fine"], ["broken-a", "broken-b"]])
    add(m, 6, [math.nan], [["innocent"]])  # the weights were already lost
    with pytest.raises(NotFinite, match=r"step 5: the loss is nan; .*broken-a, broken-b") as caught:
        m.flush()
    assert "innocent" not in str(caught.value)
    assert "fine" not in str(caught.value)


def test_an_infinite_gradient_is_found_although_the_loss_is_finite() -> None:
    m = meter()
    add(m, 3, [1.0], [["a", "b"]], norm=math.inf)
    with pytest.raises(NotFinite, match=r"step 3: .*gradient norm is inf; it held rows a, b"):
        m.flush()


def test_a_jump_of_the_loss_is_flagged_and_ordinary_noise_is_not() -> None:
    m = meter()
    for step in range(1, 31):
        add(m, step, [2.0 + 0.05 * math.sin(step * 1.7)])
    add(m, 31, [4.0])
    add(m, 32, [2.02])
    flagged = [record.step for record in m.flush() if record.spike]
    assert flagged == [31]


def test_few_steps_are_not_judged() -> None:
    m = meter()
    for step, loss in enumerate([9.0, 3.0, 12.0], 1):
        add(m, step, [loss])
    assert not any(record.spike for record in m.flush())


def test_spikes_are_judged_against_a_resumed_history() -> None:
    old = [StepRecord(step=s, loss=1.0, learning_rate=1, tokens=1, padding=0) for s in range(1, 21)]
    m = meter(old)
    add(m, 21, [5.0])
    assert m.flush()[0].spike


@pytest.mark.parametrize(("loss", "spike"), [(2.1, False), (2.15, False), (2.17, True), (3.0, True)])
def test_a_loss_that_stands_still_may_move_by_eight_hundredths_before_it_counts_as_a_spike(
    loss: float, spike: bool
) -> None:
    """Without spread, a hundredth of the median stands for it: 2.0 + 8 * 0.02 = 2.16."""
    m = meter()
    for step in range(1, 21):
        add(m, step, [2.0])
    add(m, 21, [loss])
    assert [record.spike for record in m.flush()] == [False] * 20 + [spike]


def test_a_steps_seconds_are_the_time_since_the_last() -> None:
    before = time.perf_counter()
    m = meter()
    for step in (1, 2, 3):
        add(m, step, [1.0])
    seconds = [record.seconds or 0.0 for record in m.flush()]
    assert all(one >= 0 for one in seconds) and 0 < sum(seconds) <= time.perf_counter() - before
