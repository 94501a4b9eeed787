"""The evaluation's report: figures, bars by kind with intervals, and images with questions and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llava.data.images import ImageError
from llava.evaluation.benchmark import Benchmark, Profile, Scored
from llava.evaluation.question_images import Images
from llava.evaluation.summary import ModelSummary, gain
from llava.report import Bar, Card, Report

CARDS_A_KIND = 8


def build_report(
    title: str,
    subtitle: str,
    benchmark: Benchmark,
    summaries: Sequence[ModelSummary],
    profile: Profile,
    images: Images,
    failed: Mapping[str, ImageError],
) -> Report:
    """The page; `summaries[0]` is the model under test, the others are what it is measured against."""
    model, *others = summaries
    headline = benchmark.headline
    report = Report(title, subtitle)
    report.figures(
        {
            f"{headline} ({summary.title})": _shown(headline, summary.figures[headline].value)
            for summary in summaries
            if headline in summary.figures
        }
        | {"questions": len(model.scored), "could not be asked": len(failed)}
    )
    report.text(
        f"Scores are those of profile {profile}; the other profile gives another score on {model.differing} of "
        f"{len(model.scored)} answers. Whiskers and ranges are 95 % intervals: questions about one image count "
        "as the few independent ones they are worth; differences are bootstrapped over images, both models together."
    )
    for note in benchmark.notes():
        report.text(note)
    if not model.scored:
        report.text(
            "The right answers to these questions are not known here, so there are no scores: hand in the file that "
            "stands beside the predictions."
        )
    rows: list[list[float | str | None]] = []
    for summary in summaries:
        for name, value in summary.figures.items():
            rows.append(
                [summary.title, name, round(value.value, 4), round(value.low, 4), round(value.high, 4), value.n]
            )
    for other in others:
        if not other.scored:
            continue
        value = gain(benchmark, model, other, profile)
        name = f"gain of {headline} over {other.title}"
        rows.append([model.title, name, round(value.value, 4), round(value.low, 4), round(value.high, 4), value.n])
    report.table("Figures", ["model", "figure", "value", "from", "to", "questions"], rows)
    bars = [
        Bar(kind, summary.by_kind[kind].value, summary.by_kind[kind].low, summary.by_kind[kind].high, summary.title)
        for kind in model.by_kind
        for summary in summaries
        if kind in summary.by_kind
    ]
    report.bar_chart("Score by kind of question", bars, y="mean score")
    report.gallery("Questions and answers", _cards(model, others, profile, images))
    if failed:
        lines: list[list[float | str | None]] = [[key, error.problem, str(error)] for key, error in failed.items()]
        report.table("Questions that could not be asked", ["question", "problem", "why"], lines[:100])
    return report


def _cards(model: ModelSummary, others: Sequence[ModelSummary], profile: Profile, images: Images) -> list[Card]:
    chosen = _sample(model.scored, profile)
    found, _ = images.load_all([ref for item in chosen for ref in item.question.images[:1]])
    theirs = {other.title: {item.question.id: item for item in other.scored} for other in others}
    cards = []
    for item in chosen:
        question = item.question
        lines = [question.text, f"{model.title}: {item.answer or '(nothing)'}", f"expected: {question.expected}"]
        for title, answers in theirs.items():
            if question.id in answers:
                lines.append(f"{title}: {answers[question.id].answer or '(nothing)'}")
        right = item.scores[profile] >= 0.5
        cards.append(
            Card(
                found.get(question.images[0]) if question.images else None,
                lines,
                tone="good" if right else "bad",
                tags={"kind": question.kind, "answer": "right" if right else "wrong"},
            )
        )
    return cards


def _sample(scored: Sequence[Scored], profile: Profile) -> list[Scored]:
    """Of each kind the first few right and the first few wrong answers, in the order of the questions."""
    taken: dict[tuple[str, bool], int] = {}
    chosen = []
    for item in scored:
        key = (item.question.kind, item.scores[profile] >= 0.5)
        taken[key] = taken.get(key, 0) + 1
        if taken[key] <= CARDS_A_KIND // 2:
            chosen.append(item)
    return chosen[:120]


def _shown(headline: str, value: float) -> str:
    return f"{100 * value:.1f} %" if headline in ("accuracy", "f1") else f"{value:.4g}"
