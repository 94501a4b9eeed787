"""From answers to figures: each model's scores with intervals, and what the trained model gains over the others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llava.evaluation import statistics
from llava.evaluation.benchmark import PROFILES, Benchmark, Profile, Scored
from llava.evaluation.statistics import Interval


@dataclass(frozen=True)
class ModelSummary:
    """One model's results in one profile."""

    name: str
    title: str
    figures: Mapping[str, Interval]
    by_kind: Mapping[str, Interval]
    differing: int
    scored: Sequence[Scored]


def summarise(benchmark: Benchmark, name: str, title: str, scored: Sequence[Scored], profile: Profile) -> ModelSummary:
    """Figures of one model, and on how many answers the two profiles differ."""
    differing = sum(len({item.scores[p] for p in PROFILES}) > 1 for item in scored)
    figures = benchmark.figures(scored, profile) if scored else {}  # nothing known here: no figures, rather than zeros
    return ModelSummary(name, title, figures, benchmark.by_kind(scored, profile), differing, scored)


def gain(benchmark: Benchmark, model: ModelSummary, other: ModelSummary, profile: Profile) -> Interval:
    """Paired difference of the headline, whatever it is, over the questions that both have answered."""
    theirs = {item.question.id: item for item in other.scored}
    mine = [item for item in model.scored if item.question.id in theirs]
    return statistics.difference(
        benchmark.headline_ratios(mine, profile),
        benchmark.headline_ratios([theirs[item.question.id] for item in mine], profile),
        [item.question.cluster for item in mine],
    ).interval


def metrics_of(benchmark: Benchmark, summaries: Sequence[ModelSummary], profile: Profile) -> dict[str, float]:
    """Flat numbers: `accuracy`, `accuracy_low`, `accuracy_high`, `accuracy_<kind>`, and the same of each baseline with
    its name behind (`accuracy_blank`, `accuracy_stage1`)."""
    metrics: dict[str, float] = {}
    for position, summary in enumerate(summaries):
        end = "" if position == 0 else f"_{summary.name}"
        for name, interval in summary.figures.items():
            metrics[f"{name}{end}"] = interval.value
            metrics[f"{name}{end}_low"] = interval.low
            metrics[f"{name}{end}_high"] = interval.high
        if position == 0:
            for kind, interval in summary.by_kind.items():
                metrics[f"accuracy_{slug(kind)}"] = interval.value
            metrics["profiles_differ"] = float(summary.differing)
        elif summary.scored:
            difference = gain(benchmark, summaries[0], summary, profile)
            metrics[f"gain_over_{summary.name}"] = difference.value
            metrics[f"gain_over_{summary.name}_low"] = difference.low
            metrics[f"gain_over_{summary.name}_high"] = difference.high
    return metrics


def slug(text: str) -> str:
    """A text as a part of a metric's name."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
