"""Figures as sums of ratios: what lets one resampling serve every benchmark, paired differences included.

A mean is `sum(score) / sum(1)`; F1 is `sum(2 hits) / sum(2 hits + errors)`; a circular accuracy counts each question
once however many rotations it has; MME's total is a sum of such ratios over subtasks. Each needs two numbers a question
and ratio, so a resample is a weighted sum, and predictions on disk can carry what a later comparison needs.

Shapes: N questions, K ratios, M clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ratios:
    """`sum over k of weights[k] * sum(numerators[k]) / sum(denominators[k])`; a ratio of 0 by 0 is 0."""

    numerators_KN: Floats
    denominators_KN: Floats
    weights_K: Floats

    @classmethod
    def mean(cls, values: Sequence[float]) -> Ratios:
        """The mean of one value a question."""
        return cls.ratio(values, np.ones(len(values)))

    @classmethod
    def ratio(cls, numerators: Sequence[float] | Floats, denominators: Sequence[float] | Floats) -> Ratios:
        """A single ratio of sums."""
        return cls.sum([(numerators, denominators)])

    @classmethod
    def sum(
        cls,
        pairs: Sequence[tuple[Sequence[float] | Floats, Sequence[float] | Floats]],
        weights: Sequence[float] | None = None,
    ) -> Ratios:
        """Several (numerators, denominators), each weighted (default: 1)."""
        return cls(
            np.asarray([top for top, _ in pairs], dtype=np.float64),
            np.asarray([bottom for _, bottom in pairs], dtype=np.float64),
            np.asarray([1.0] * len(pairs) if weights is None else weights, dtype=np.float64),
        )

    @property
    def n(self) -> int:
        """Questions that count in it; those that share one unit (rotations of a question) are one."""
        if not self.denominators_KN.size:
            return 0
        if len(self.weights_K) == 1 and float(self.denominators_KN.max()) <= 1:
            return round(float(self.denominators_KN.sum()))
        return int((self.denominators_KN != 0).any(axis=0).sum())

    @property
    def is_share(self) -> bool:
        """Whether it is one ratio that stays between 0 and 1 whatever is drawn."""
        if len(self.weights_K) != 1 or self.weights_K[0] != 1:
            return False
        return bool(np.all(self.numerators_KN >= 0) and np.all(self.numerators_KN <= self.denominators_KN))

    def take(self, indices: Sequence[int]) -> Ratios:
        """The same figure over some of the questions."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Ratios(self.numerators_KN[:, chosen], self.denominators_KN[:, chosen], self.weights_K)

    def value(self) -> float:
        """The figure over all questions."""
        return float(self._combine(self.numerators_KN.sum(axis=1), self.denominators_KN.sum(axis=1)))

    def draws(self, cluster_N: npt.NDArray[np.int64], resamples: int, seed: int) -> Floats:
        """The figure over `resamples` samples of clusters drawn with replacement.

        Two figures over the same questions draw the same clusters when the seed is the same, hence pair.

        Args:
            cluster_N: number of each question's cluster, from 0.
            resamples: how often.
            seed: of the draws.
        """
        clusters = int(cluster_N.max()) + 1
        parts_KM = [np.bincount(cluster_N, weights=row, minlength=clusters) for row in self.numerators_KN]
        parts_KM += [np.bincount(cluster_N, weights=row, minlength=clusters) for row in self.denominators_KN]
        sums_MP = np.stack(parts_KM, axis=1)
        generator = np.random.default_rng(seed)
        totals_RP = np.empty((resamples, sums_MP.shape[1]))
        for k in range(resamples):  # one at a time: (resamples, clusters) would be gigabytes for VQAv2
            drawn_M = np.bincount(generator.integers(0, clusters, clusters), minlength=clusters)
            totals_RP[k] = drawn_M @ sums_MP
        count = len(self.weights_K)
        return np.asarray(self._combine(totals_RP[:, :count].T, totals_RP[:, count:].T), dtype=np.float64)

    def _combine(self, tops: Floats, bottoms: Floats) -> Floats:
        ratios = np.divide(tops, bottoms, out=np.zeros_like(tops), where=bottoms != 0)
        return np.asarray(np.tensordot(self.weights_K, ratios, axes=1))
