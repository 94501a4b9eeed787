"""A comparison on a page and in a terminal: figures, differences, a history as lines, wins and losses to browse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llava.data.images import ImageError
from llava.errors import UserError
from llava.evaluation.benchmark import PROFILES, Question
from llava.evaluation.comparing import Comparison, Finished
from llava.evaluation.question_images import Images
from llava.evaluation.samples import MOST_BYTES, image_name, thumbnails_of
from llava.evaluation.statistics import Interval
from llava.report import Answer, Bar, Report, Sample

Row = list[float | str | None]
_HOW = (
    "Differences are paired: both models on the same questions, the headline of each recomputed on every sample of "
    'images. {count} comparisons were made: p is corrected for that (Holm), and "all together" is the interval that '
    "holds for all of them at once (Bonferroni). Beyond chance: this one leaves out zero."
)


def figure_rows(comparison: Comparison) -> tuple[list[str], list[Row]]:
    """A row a model, a column a benchmark: the headline with its interval."""
    headlines = {item.key: item.about.headline for item in comparison.finished}
    columns = ["model", *(f"{key} ({headlines[key]})" for key in comparison.keys)]
    rows: list[Row] = []
    for label in comparison.labels:
        row: Row = [label]
        for key in comparison.keys:
            found = comparison.figures.get((label, key))
            row.append(f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})" if found else None)
        rows.append(row)
    return columns, rows


def difference_rows(comparison: Comparison) -> tuple[list[str], list[Row]]:
    """A row a comparison."""
    columns = [
        "benchmark",
        "difference",
        "value",
        "95 %",
        "all together",
        "p",
        "beyond chance",
        "wins",
        "losses",
        "questions",
    ]
    rows: list[Row] = []
    for item in comparison.compared:
        interval = item.difference.interval
        real = item.together.low > 0 or item.together.high < 0
        rows.append(
            [
                f"{item.key} ({item.headline})",
                f"{item.model} - {item.other}",
                f"{interval.value:+.4f}",
                _range(interval),
                _range(item.together),
                f"{item.p:.3g}",
                "yes" if real else "no",
                float(item.wins),
                float(item.losses),
                float(interval.n),
            ]
        )
    return columns, rows


def build_report(comparison: Comparison, *, history: bool) -> Report:
    """The page; with `history` the models are checkpoints in order."""
    labels = comparison.labels
    report = Report(f"Comparison of {len(labels)} models", f"{', '.join(labels)}; profile {comparison.profile}")
    report.table("Figures", *figure_rows(comparison))
    if history:
        _history(report, comparison)
    report.table("Differences", *difference_rows(comparison))
    report.text(_HOW.format(count=len(comparison.compared)))
    left_out = sum(item.only_one for item in comparison.compared)
    if left_out:
        report.text(f"{left_out} answers to questions that the other one has no score for are left out.")
    bars = [
        Bar(
            f"{item.key}: {item.model} - {item.other}",
            item.difference.interval.value,
            item.together.low,
            item.together.high,
        )
        for item in comparison.compared
    ]
    report.bar_chart("Differences with their intervals (all together)", bars, y="difference")
    samples, thumbnails = _samples(comparison)
    profiles: list[str] = [comparison.profile, *(other for other in PROFILES if other != comparison.profile)]
    first = list(reversed(labels)) if history else [*labels[1:], labels[0]]  # wins and losses are the newest's
    report.explorer("Every question: wins and losses", samples, first, profiles, thumbnails)
    report.facts("Where this comes from", [fact for item in comparison.finished for fact in _facts(item)])
    return report


def as_json(comparison: Comparison) -> dict[str, object]:
    """Everything on the page but the samples."""
    return {
        "profile": comparison.profile,
        "figures": [
            {"model": label, "benchmark": key, **vars(value)} for (label, key), value in comparison.figures.items()
        ],
        "differences": [
            {
                "benchmark": item.key,
                "headline": item.headline,
                "model": item.model,
                "other": item.other,
                **vars(item.difference.interval),
                "p": item.difference.p,
                "p_corrected": item.p,
                "low_together": item.together.low,
                "high_together": item.together.high,
                "wins": item.wins,
                "losses": item.losses,
                "only_one": item.only_one,
            }
            for item in comparison.compared
        ],
    }


def _range(interval: Interval) -> str:
    return f"{interval.low:+.4f} to {interval.high:+.4f}"


def _history(report: Report, comparison: Comparison) -> None:
    """Lines over the checkpoints: their labels where all are numbers, else their order."""
    steps = _numbers(comparison.labels)
    axis = "checkpoint" if steps == [float(k + 1) for k in range(len(steps))] else "step"
    for key in comparison.keys:
        steps_and_figures = [
            (step, comparison.figures.get((label, key))) for step, label in zip(steps, comparison.labels, strict=True)
        ]
        headline = next(item.about.headline for item in comparison.finished if item.key == key)
        lines = {
            title: [(step, getattr(value, name)) for step, value in steps_and_figures if value]
            for title, name in ((headline, "value"), ("from", "low"), ("to", "high"))
        }
        if lines[headline]:  # a benchmark that a judge has not scored yet has no line
            report.line_chart(f"{key} over checkpoints", lines, x=axis, y=headline)


def _numbers(labels: Sequence[str]) -> list[float]:
    digits = ["".join(letter for letter in label if letter.isdigit()) for label in labels]
    if all(digits) and len(set(digits)) == len(digits):
        return [float(value) for value in digits]
    return [float(k + 1) for k in range(len(labels))]


def _samples(comparison: Comparison) -> tuple[list[Sample], dict[str, bytes]]:
    samples: list[Sample] = []
    thumbnails: dict[str, bytes] = {}
    keys = comparison.keys
    for key in keys:
        own = [item for item in comparison.finished if item.key == key]
        name = key if len(keys) > 1 else ""
        rows = {row_id: row for item in reversed(own) for row_id, row in item.rows.items()}
        questions = []
        for row_id, row in rows.items():
            question = _question(row_id, row)
            questions.append(question)
            answers = {item.label: _answer(item, row_id) for item in own if row_id in item.rows}
            samples.append(
                Sample(
                    id=f"{name}/{row_id}" if name else row_id,
                    question=question.text,
                    expected=question.expected,
                    image=image_name(name, question),
                    tags={**({"benchmark": name} if name else {}), "kind": question.kind},
                    answers=answers,
                )
            )
        try:
            images = Images(own[0].about.images_uri)
            wanted = _disputed_first(own, questions, comparison)
            thumbnails |= thumbnails_of(name, wanted, images, MOST_BYTES // len(keys))
        except (ImageError, UserError):
            continue  # the images are elsewhere now; the page names them
    return samples, thumbnails


def _question(row_id: str, row: Mapping[str, Any]) -> Question:
    """A question as its row in a predictions file has it."""
    fields = {name: str(row.get(name, "")) for name in ("question", "expected", "kind", "cluster")}
    images = tuple(str(reference) for reference in row.get("images", ()))
    return Question(row_id, images, fields["question"], fields["expected"], fields["kind"], fields["cluster"])


def _disputed_first(own: Sequence[Finished], questions: Sequence[Question], comparison: Comparison) -> list[Question]:
    def agreed(question: Question) -> bool:
        rows = [item.rows[question.id] for item in own if question.id in item.rows]
        return len({row.get("scores", {}).get(comparison.profile) for row in rows}) == 1

    return sorted(questions, key=agreed)


def _answer(item: Finished, row_id: str) -> Answer:
    row = item.rows[row_id]
    scores = {str(name): float(value) for name, value in dict(row.get("scores", {})).items()}
    return Answer(str(row.get("answer", "")), scores)


def _facts(item: Finished) -> list[tuple[str, str, str]]:
    about = item.about
    code = f"llava {about.version}" + (f", commit {about.commit}" if about.commit else "")
    return [
        (
            f"{item.label}: {item.key}",
            f"{item.uri}; model {about.model} (hash {about.model_hash[:16]}), {about.engine}; "
            f"{about.questions} questions, data hash {about.data_hash}; {code}",
            "",
        )
    ]
