"""Intervals: how far a figure can be trusted.

Questions about one image are not independent, so every interval knows the clusters. A share of independent 0/1 scores
gets Wilson's interval (Wilson 1927), which is right near 0 and 1 where the usual one is not. Any other figure between
0 and 1 gets the same on an effective number of questions: as many independent ones as would vary as much as the
clusters do, with Student's t in place of the normal (Korn and Graubard 1998). Everything else, and every difference
between two models, is bootstrapped over clusters (Efron 1979), the percentiles widened for few clusters (Hesterberg
2015, "What Teachers Should Know about the Bootstrap", section 5.2). A test simulates how often they cover the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from llava.evaluation.ratios import Floats, Ratios

Z95 = 1.959963984540054
LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A figure, its interval (95 % unless said otherwise), and how many questions it stands on."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """A paired difference with its interval, and the two-sided p-value of no difference."""

    interval: Interval
    p: float


def wilson(successes: float, n: float, z: float = Z95) -> Interval:
    """Share of successes with Wilson's score interval; an empty sample is 0 within 0 and 1."""
    if n == 0:
        return Interval(0.0, 0.0, 1.0, 0)
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), round(n))


def mean(scores: Sequence[float], clusters: Sequence[Hashable]) -> Interval:
    """Mean score with its interval; scores from 0 to 1, or any (then bootstrapped)."""
    return estimate(Ratios.mean(scores), clusters)


def estimate(figure: Ratios, clusters: Sequence[Hashable]) -> Interval:
    """A figure with its 95 % interval.

    Args:
        figure: over N questions.
        clusters: the cluster of each of them, usually the image.
    """
    cluster_N = _numbered(clusters)
    if not len(cluster_N):
        return Interval(0.0, 0.0, 1.0, 0)
    value = figure.value()
    if not figure.is_share:
        return bootstrapped(figure, cluster_N)
    counts = figure.denominators_KN.sum()
    if counts == 0:
        return Interval(0.0, 0.0, 1.0, 0)
    tops_M = np.bincount(cluster_N, weights=figure.numerators_KN[0])
    bottoms_M = np.bincount(cluster_N, weights=figure.denominators_KN[0])
    if np.allclose(bottoms_M, 1) and np.allclose(tops_M * (1 - tops_M), 0):  # each cluster is one 0 or 1
        return wilson(round(float(tops_M.sum())), len(tops_M))
    effective = _effective_number(figure, cluster_N, value)
    share = wilson(value * effective, effective)
    return Interval(value, min(value, share.low), max(value, share.high), figure.n)


def bootstrap(
    scores: Sequence[float], clusters: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean of any scores, bootstrapped over clusters."""
    if not scores:
        return Interval(0.0, 0.0, 0.0, 0)
    return bootstrapped(Ratios.mean(scores), _numbered(clusters), resamples=resamples, seed=seed)


def bootstrapped(
    figure: Ratios, cluster_N: npt.NDArray[np.int64], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """A figure with the percentile interval of resampled clusters (numbered from 0)."""
    draws = figure.draws(cluster_N, resamples, seed)
    low, high = np.quantile(draws, _tails(int(cluster_N.max()) + 1, LEVEL))
    return Interval(figure.value(), float(low), float(high), figure.n)


def bootstrap_statistic(
    statistic: Callable[[npt.NDArray[np.int64]], float],
    clusters: Sequence[Hashable],
    *,
    resamples: int = 400,
    seed: int = 0,
) -> Interval:
    """A statistic that is no sum of ratios (a median): `statistic(indices)` over resampled clusters.

    Args:
        statistic: takes indices of questions, with repetitions.
        clusters: the cluster of each question.
        resamples: how often it is recomputed.
        seed: of the resampling.
    """
    cluster_N = _numbered(clusters)
    if not len(cluster_N):
        return Interval(0.0, 0.0, 0.0, 0)
    count = int(cluster_N.max()) + 1
    groups = [np.flatnonzero(cluster_N == k) for k in range(count)]
    generator = np.random.default_rng(seed)
    draws = [
        statistic(np.concatenate([groups[k] for k in generator.integers(0, count, count)])) for _ in range(resamples)
    ]
    low, high = np.quantile(draws, _tails(count, LEVEL))
    return Interval(float(statistic(np.arange(len(cluster_N)))), float(low), float(high), len(cluster_N))


def difference(
    figure: Ratios,
    other: Ratios,
    clusters: Sequence[Hashable],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """`figure - other` over the same questions: both are recomputed on each sample of clusters.

    Raises:
        ValueError: the two do not have the same questions.
    """
    if not figure.numerators_KN.shape[1] == other.numerators_KN.shape[1] == len(clusters):
        raise ValueError(
            f"{figure.numerators_KN.shape[1]} scores, {other.numerators_KN.shape[1]} others and {len(clusters)} "
            "clusters do not pair"
        )
    if not len(clusters):
        return Difference(Interval(0.0, 0.0, 0.0, 0), 1.0)
    cluster_N = _numbered(clusters)
    draws = figure.draws(cluster_N, resamples, seed) - other.draws(cluster_N, resamples, seed)
    low, high = np.quantile(draws, _tails(int(cluster_N.max()) + 1, level))
    value = figure.value() - other.value()
    # Two-sided, by how often a sample says the opposite; one is added so that no finite sample says "never".
    tail = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (resamples + 1))
    return Difference(Interval(value, float(low), float(high), len(clusters)), p)


def paired_difference(
    scores: Sequence[float], others: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0
) -> Interval:
    """Mean of `scores - others` over the same questions.

    Raises:
        ValueError: the two do not have the same questions.
    """
    return difference(Ratios.mean(scores), Ratios.mean(others), clusters, seed=seed).interval


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979, "A simple sequentially rejective multiple test procedure")."""
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[k]))
        corrected[k] = largest
    return corrected


def student(probability: float, freedom: int) -> float:
    """Quantile of Student's t: exact for 1 and 2 degrees of freedom, else by the expansion of Abramowitz and Stegun
    26.7.5 (relative error below 0.5 % from 3 degrees on for 95 % intervals)."""
    if freedom == 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        return 2 * (probability - 0.5) * math.sqrt(2 / (4 * probability * (1 - probability)))
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / math.pow(freedom, k + 1) for k, term in enumerate(terms))


def _effective_number(figure: Ratios, cluster_N: npt.NDArray[np.int64], value: float) -> float:
    """Independent questions that would vary as much as the clusters do; never more than there are."""
    counts = float(figure.denominators_KN.sum())
    clusters = int(cluster_N.max()) + 1
    residual_N: Floats = figure.numerators_KN[0] - value * figure.denominators_KN[0]
    residual_M = np.bincount(cluster_N, weights=residual_N)
    variance = float((residual_M**2).sum()) * clusters / max(1, clusters - 1) / counts**2
    if clusters == 1 or not 0 < value < 1:
        return min(float(clusters), counts)  # nothing varies, so nothing says that questions are independent
    effective = min(value * (1 - value) / variance, counts) if variance > 0 else counts
    return float(effective * (Z95 / student(0.5 + LEVEL / 2, clusters - 1)) ** 2)


def _tails(clusters: int, level: float) -> list[float]:
    """Percentiles of a bootstrap that make up for its narrowness with few clusters."""
    if clusters < 2:
        return [0.0, 1.0]
    tail = (1 - level) / 2
    wide = math.sqrt(clusters / (clusters - 1)) * student(1 - tail, clusters - 1)
    below = NormalDist().cdf(-wide)
    return [below, 1 - below]


def _numbered(clusters: Sequence[Hashable]) -> npt.NDArray[np.int64]:
    place: dict[Hashable, int] = {}
    return np.asarray([place.setdefault(cluster, len(place)) for cluster in clusters], dtype=np.int64)
