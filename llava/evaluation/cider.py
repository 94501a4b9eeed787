"""CIDEr-D (Vedantam et al. 2015, arXiv:1411.5726): how much a caption agrees with people's, rare words counting more.

n-grams of 1 to 4 words, TF-IDF over the references, cosine with clipped counts and a Gaussian length penalty (sigma 6),
times 10. The document frequencies are the corpus's own, so a corpus of one image scores 0 by construction.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from llava.evaluation.ptb import words_of

N = 4
SIGMA = 6.0
Grams = Counter[tuple[str, ...]]


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """The score of each candidate; a corpus's CIDEr is their mean.

    Raises:
        ValueError: not one set of references for each candidate.
    """
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} captions for {len(references)} sets of references")
    ends = [len(candidates)]
    for texts in references:
        ends.append(ends[-1] + len(texts))
    split = [_grams(tokens) for tokens in words_of([*candidates, *(text for texts in references for text in texts)])]
    counted = [split[start:end] for start, end in pairwise(ends)]
    frequency: Counter[tuple[str, ...]] = Counter()
    for sets in counted:
        frequency.update(set().union(*sets))
    total = math.log(max(1, len(references)))
    scores = []
    for own, sets in zip(split, counted, strict=False):
        parts = [_similarity(own, other, frequency, total) for other in sets]
        scores.append(10 * sum(parts) / len(parts) if parts else 0.0)
    return scores


def _grams(tokens: Sequence[str]) -> Grams:
    return Counter(tuple(tokens[k : k + n]) for n in range(1, N + 1) for k in range(len(tokens) - n + 1))


def _similarity(own: Grams, other: Grams, frequency: Mapping[tuple[str, ...], int], total: float) -> float:
    def weigh(grams: Grams, n: int) -> dict[tuple[str, ...], float]:
        return {g: c * (total - math.log(max(1, frequency.get(g, 0)))) for g, c in grams.items() if len(g) == n}

    length = sum(c for g, c in own.items() if len(g) == 1) - sum(c for g, c in other.items() if len(g) == 1)
    penalty = math.exp(-(length**2) / (2 * SIGMA**2))
    value = 0.0
    for n in range(1, N + 1):
        a, b = weigh(own, n), weigh(other, n)
        norm = math.sqrt(sum(v * v for v in a.values())) * math.sqrt(sum(v * v for v in b.values()))
        if norm:
            value += sum(min(v, b[g]) * b[g] for g, v in a.items() if g in b) / norm
    return penalty * value / N
