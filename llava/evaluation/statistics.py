"""Intervals: how far a score can be trusted.

0/1 scores get Wilson's interval (Wilson 1927), which is right near 0 and 1 where the usual one is not. Any other score,
and every difference between two models on the same questions, is bootstrapped over images (Efron 1979): questions about
one image are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Z95 = 1.959963984540054
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A score, its 95 % interval, and how many questions it stands on."""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: float, n: int, z: float = Z95) -> Interval:
    """Share of successes with Wilson's score interval; an empty sample is 0 within 0 and 1."""
    if n == 0:
        return Interval(0.0, 0.0, 1.0, 0)
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), n)


def mean(scores: Sequence[float], clusters: Sequence[Hashable]) -> Interval:
    """Mean score: Wilson where every score is 0 or 1, else bootstrapped over clusters."""
    if all(score in (0, 1) for score in scores):
        return wilson(sum(scores), len(scores))
    return bootstrap(scores, clusters)


def bootstrap(
    scores: Sequence[float], clusters: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean with a percentile interval over resampled clusters (images)."""
    if not scores:
        return Interval(0.0, 0.0, 0.0, 0)
    sums, sizes = _by_cluster(np.asarray(scores, dtype=np.float64), clusters)
    weights = _weights(len(sums), resamples, seed)
    draws = (weights @ sums) / (weights @ sizes)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(sums.sum() / sizes.sum()), float(low), float(high), len(scores))


def bootstrap_statistic(
    statistic: Callable[[npt.NDArray[np.int64]], float],
    clusters: Sequence[Hashable],
    *,
    resamples: int = 400,
    seed: int = 0,
) -> Interval:
    """A statistic that is no mean (F1, a corpus score): `statistic(indices)` over resampled clusters.

    Args:
        statistic: takes indices of questions, with repetitions.
        clusters: the cluster of each question.
        resamples: how often it is recomputed.
        seed: of the resampling.
    """
    members: dict[Hashable, list[int]] = {}
    for index, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(index)
    everything = np.arange(len(clusters))
    if not len(everything):
        return Interval(0.0, 0.0, 0.0, 0)
    groups = [np.asarray(group) for group in members.values()]
    generator = np.random.default_rng(seed)
    draws = [
        statistic(np.concatenate([groups[k] for k in generator.integers(0, len(groups), len(groups))]))
        for _ in range(resamples)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(statistic(everything)), float(low), float(high), len(clusters))


def paired_difference(
    scores: Sequence[float], others: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0
) -> Interval:
    """Mean of `scores - others` over the same questions, bootstrapped over clusters.

    Raises:
        ValueError: the two do not have the same questions.
    """
    if not len(scores) == len(others) == len(clusters):
        raise ValueError(f"{len(scores)} scores, {len(others)} others and {len(clusters)} clusters do not pair")
    return bootstrap([a - b for a, b in zip(scores, others, strict=True)], clusters, seed=seed)


def _by_cluster(
    scores: npt.NDArray[np.float64], clusters: Sequence[Hashable]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    place: dict[Hashable, int] = {}
    index = np.asarray([place.setdefault(cluster, len(place)) for cluster in clusters])
    return np.bincount(index, weights=scores).astype(np.float64), np.bincount(index).astype(np.float64)


def _weights(clusters: int, resamples: int, seed: int) -> npt.NDArray[np.float64]:
    """(resamples, clusters): how often each cluster is drawn."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples).astype(np.float64)
