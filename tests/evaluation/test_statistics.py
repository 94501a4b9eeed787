"""Intervals against known values, and what they must mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.evaluation import statistics


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, table I: Wilson's score interval without continuity correction.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_has_the_published_values(successes: int, n: int, low: float, high: float) -> None:
    interval = statistics.wilson(successes, n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)
    assert interval.value == successes / n and interval.n == n


@given(st.integers(0, 500), st.integers(0, 500))
def test_wilson_encloses_the_share_and_stays_in_bounds(a: int, b: int) -> None:
    interval = statistics.wilson(min(a, b), max(a, b))
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_wilson_covers_the_truth_about_95_times_in_100() -> None:
    generator = np.random.default_rng(1)
    draws = generator.binomial(60, 0.85, size=4000)
    inside = [interval.low <= 0.85 <= interval.high for interval in (statistics.wilson(int(k), 60) for k in draws)]
    assert 0.93 < np.mean(inside) < 0.97


def test_bootstrap_agrees_with_theory_and_knows_clusters() -> None:
    generator = np.random.default_rng(2)
    scores = generator.normal(5, 2, size=400)
    alone = statistics.bootstrap(scores.tolist(), range(400))
    half = 1.96 * float(scores.std()) / 20
    assert alone.value == pytest.approx(float(scores.mean()))
    assert (alone.low, alone.high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.05)
    # Every score four times, as four questions about one image: no more is known than before.
    four = statistics.bootstrap(np.repeat(scores, 4).tolist(), np.repeat(np.arange(400), 4).tolist())
    assert four.high - four.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert statistics.bootstrap(scores.tolist(), range(400)) == alone  # deterministic


def test_a_mean_of_zeros_and_ones_is_wilsons_and_of_anything_else_bootstrapped() -> None:
    assert statistics.mean([1, 0, 1, 1], "abcd") == statistics.wilson(3, 4)
    assert statistics.mean([1, 0.5, 1, 1], "abcd") == statistics.bootstrap([1, 0.5, 1, 1], "abcd")
    assert statistics.mean([], []).n == 0 and statistics.bootstrap([], []).n == 0


def test_a_statistic_that_is_no_mean() -> None:
    values = np.asarray([1.0, 2.0, 3.0, 10.0, 11.0, 12.0])
    interval = statistics.bootstrap_statistic(lambda chosen: float(np.median(values[chosen])), list("aabbcc"))
    assert interval.value == 6.5 and 1 <= interval.low < 6.5 < interval.high <= 12


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    generator = np.random.default_rng(3)
    hard = generator.random(300)
    ours = (hard < 0.8).astype(float).tolist()
    theirs = (hard < 0.7).astype(float).tolist()
    gain = statistics.paired_difference(ours, theirs, range(300))
    assert gain.value == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert gain.low > 0
    apart = statistics.mean(ours, range(300)).low - statistics.mean(theirs, range(300)).high
    assert apart < gain.low
    with pytest.raises(ValueError, match="do not pair"):
        statistics.paired_difference([1.0], [1.0, 0.0], range(2))
