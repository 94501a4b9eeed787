"""What a finished evaluation leaves for later ones: rows that carry their part of the headline, and whose they are."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from llava.evaluation.about import About
from llava.evaluation.asking import Answered, Work
from llava.evaluation.benchmark import PROFILES, Benchmark, Profile, Scored
from llava.evaluation.predictions import PredictionLog
from llava.evaluation.provenance import code_facts, data_hash
from llava.evaluation.ratios import Ratios


def finish(log: PredictionLog, work: Work, answered: Answered, benchmark: Benchmark, scored: Sequence[Scored]) -> None:
    """Write one model's predictions with scores, and with what a comparison needs to recompute the headline."""
    ratios: dict[Profile, Ratios] = {}
    if scored:
        ratios = {profile: benchmark.headline_ratios(scored, profile) for profile in PROFILES}
    places = {item.question.id: place for place, item in enumerate(scored)}

    def headline(key: str) -> dict[str, object]:
        if key not in places:
            return {}
        return {"headline": {profile: sparse(ratios[profile], places[key]) for profile in PROFILES}}

    about = About(
        whose=answered.whose,
        contender=answered.name,
        title=answered.title,
        model=answered.uri,
        model_hash=answered.identity[0],
        engine=answered.engine,
        benchmark=benchmark.name,
        headline=benchmark.headline,
        weights={str(profile): value.weights_K.tolist() for profile, value in ratios.items()},
        questions_uri=work.uri,
        images_uri=work.images_uri,
        questions=len(work.questions),
        data_hash=data_hash(work.questions),
        left_out={key: {"problem": item.problem, "why": item.why} for key, item in answered.left_out.items()},
        created_unix=time.time(),
        **code_facts(),
    )
    log.finish(work.questions, {item.question.id: item.scores for item in scored}, headline, about)


def sparse(ratios: Ratios, place: int) -> list[list[float]]:
    """One question's part of a figure: (number of the ratio, numerator, denominator) where it has one."""
    tops, bottoms = ratios.numerators_KN[:, place], ratios.denominators_KN[:, place]
    return [[float(k), float(tops[k]), float(bottoms[k])] for k in np.flatnonzero((tops != 0) | (bottoms != 0))]


def dense(parts: Sequence[Sequence[Sequence[float]]], weights: Sequence[float]) -> Ratios:
    """The figure over questions, from their parts.

    Raises:
        ValueError: a part names a ratio that has no weight.
    """
    shape = (len(weights), len(parts))
    tops, bottoms = np.zeros(shape), np.zeros(shape)
    for place, entries in enumerate(parts):
        for k, top, bottom in entries:
            if not 0 <= int(k) < len(weights):
                raise ValueError(f"ratio {k} of {len(weights)}")
            tops[int(k), place], bottoms[int(k), place] = top, bottom
    return Ratios(tops, bottoms, np.asarray(weights, dtype=np.float64))
