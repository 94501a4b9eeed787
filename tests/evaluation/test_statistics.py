"""Intervals against known values, and what they must mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.evaluation import statistics
from llava.evaluation.ratios import Ratios
from llava.evaluation.statistics import Interval


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


def test_independent_zeros_and_ones_are_wilsons() -> None:
    assert statistics.mean([1, 0, 1, 1], "abcd") == statistics.wilson(3, 4)
    assert statistics.mean([], []).n == 0 and statistics.bootstrap([], []).n == 0


def correlated(
    generator: np.random.Generator, clusters: int, each: int, share: float, correlation: float
) -> tuple[list[float], list[int]]:
    """0/1 scores whose clusters' own shares are beta distributed: correlation between two scores of a cluster."""
    if correlation in (0, 1):
        own = np.full(clusters, share) if correlation == 0 else (generator.random(clusters) < share).astype(float)
    else:
        size = (1 - correlation) / correlation
        own = generator.beta(share * size, (1 - share) * size, clusters)
    scores = generator.random((clusters, each)) < own[:, None]
    return scores.astype(float).ravel().tolist(), np.repeat(np.arange(clusters), each).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0, 0.05, 0.1, 0.3, 0.6, 1])
@pytest.mark.parametrize(("clusters", "each", "share"), [(50, 17, 0.6), (200, 17, 0.86), (120, 3, 0.7)])
def test_intervals_cover_the_truth_whatever_the_correlation_within_an_image(
    clusters: int, each: int, share: float, correlation: float
) -> None:
    generator = np.random.default_rng(5)
    inside = []
    for _ in range(1500):
        interval = statistics.mean(*correlated(generator, clusters, each, share, correlation))
        inside.append(interval.low <= share <= interval.high)
    assert 0.93 <= np.mean(inside) <= 0.97, np.mean(inside)


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0, 0.3, 0.8])
def test_differences_cover_the_truth_with_few_images(correlation: float) -> None:
    generator = np.random.default_rng(6)
    inside = []
    for number in range(600):
        ours, clusters = correlated(generator, 25, 6, 0.7, correlation)
        theirs, _ = correlated(generator, 25, 6, 0.6, correlation)
        found = statistics.difference(Ratios.mean(ours), Ratios.mean(theirs), clusters, resamples=400, seed=number)
        inside.append(found.interval.low <= 0.1 <= found.interval.high)
    assert 0.93 <= np.mean(inside) <= 0.97, np.mean(inside)


def test_correlated_questions_widen_the_interval_and_an_image_is_worth_one_question_at_most() -> None:
    scores = [1.0] * 60 + [0.0] * 40
    alone = statistics.mean(scores, range(100))
    grouped = statistics.mean(np.repeat(scores, 17).tolist(), np.repeat(np.arange(100), 17).tolist())
    assert grouped.value == alone.value and grouped.n == 1700
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=0.05)
    # All right tells nothing of the correlation: as many as there are images.
    assert statistics.mean([1.0] * 170, np.repeat(np.arange(10), 17).tolist()).low == statistics.wilson(10, 10).low


@pytest.mark.parametrize(
    ("freedom", "quantile", "within"),
    # Student's t, 97.5 %: any printed table. The series is the better the more degrees of freedom there are.
    [
        (1, 12.706205, 1e-6),
        (2, 4.302653, 1e-6),
        (3, 3.182446, 1.3e-3),
        (4, 2.776445, 3.5e-4),
        (5, 2.570582, 1.2e-4),
        (8, 2.306004, 1.2e-5),
        (10, 2.228139, 4e-6),
        (30, 2.042272, 5e-7),
        (100, 1.983972, 5e-7),
    ],
)
def test_students_t_has_the_tables_values(freedom: int, quantile: float, within: float) -> None:
    assert statistics.student(0.975, freedom) == pytest.approx(quantile, rel=within)


def test_ten_images_of_two_equal_answers_are_worth_seven_questions() -> None:
    """By hand: residuals of +-1 a cluster, variance 10 * 10/9 / 20^2 = 1/36, so p (1 - p) / variance = 9 questions,
    6.756 with Student's t for ten clusters; Wilson's half width at 0.5 is z / (1 + z^2/n) * sqrt(1/4n + z^2/4n^2)."""
    found = statistics.mean([1.0] * 10 + [0.0] * 10, np.repeat(np.arange(10), 2).tolist())
    n, z = 9 * (1.959964 / 2.262157) ** 2, 1.959964
    assert n == pytest.approx(6.75613, abs=1e-4)
    half = z / (1 + z**2 / n) * math.sqrt(1 / (4 * n) + z**2 / (4 * n**2))
    assert [found.low, found.high] == pytest.approx([0.5 - half, 0.5 + half], abs=1e-5)


def test_a_difference_that_no_sample_denies_has_the_smallest_p_there_is() -> None:
    better = Ratios.mean([1.0] * 12)
    found = statistics.difference(better, Ratios.mean([0.0] * 12), range(12), resamples=99)
    assert found.p == 2 / 100
    assert statistics.difference(better, better, range(12), resamples=99).p == 1.0
    with pytest.raises(ValueError, match="12 scores, 11 others and 12 clusters do not pair"):
        statistics.difference(better, Ratios.mean([0.0] * 11), range(12))


def test_nothing_asked_says_nothing() -> None:
    assert statistics.mean([], []) == Interval(0.0, 0.0, 1.0, 0)
    assert statistics.bootstrap([], []) == Interval(0.0, 0.0, 0.0, 0)
    nothing = statistics.difference(Ratios.mean([]), Ratios.mean([]), [])
    assert (nothing.interval.value, nothing.interval.low, nothing.interval.high, nothing.p) == (0.0, 0.0, 0.0, 1.0)


def test_holm_corrects_step_by_step() -> None:
    # Holm 1979 by hand: 0.01 x 4, 0.02 x 3, max(0.03 x 2, 0.06), max(0.04 x 1, 0.06).
    assert statistics.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0] and statistics.holm([]) == []


def test_ratios_are_means_f1_and_sums_of_them() -> None:
    assert Ratios.mean([1, 0, 1, 1]).value() == 0.75
    hits, errors = np.asarray([1.0, 1, 0, 0]), np.asarray([0.0, 0, 1, 0])
    assert Ratios.ratio(2 * hits, 2 * hits + errors).value() == 0.8  # precision 1, recall 2/3
    total = Ratios.sum([([1, 1, 0, 0], [1, 1, 0, 0]), ([0, 0, 1, 0], [0, 0, 1, 1])], [100, 100])
    assert total.value() == 150 and not total.is_share and total.take([2, 3]).value() == 50
    assert Ratios.ratio([0, 0], [0, 0]).value() == 0 and Ratios.mean([]).n == 0


def test_a_statistics_draws_are_those_of_its_own_recomputation() -> None:
    """The same resampling done the slow way, index by index."""
    generator = np.random.default_rng(4)
    scores, clusters = generator.random(60), np.repeat(np.arange(12), 5)
    draws = Ratios.mean(scores.tolist()).draws(clusters, 50, seed=9)
    again = np.random.default_rng(9)
    for draw in draws:
        chosen = np.concatenate([np.flatnonzero(clusters == k) for k in again.integers(0, 12, 12)])
        assert draw == pytest.approx(scores[chosen].mean())


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
