"""The evaluation's report: the table, figures with intervals, bars by kind, and every question with its answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llava.evaluation.benchmark import PROFILES, Profile, Question, Scored
from llava.evaluation.judged import Judged
from llava.evaluation.provenance import Fact
from llava.evaluation.result import Result
from llava.evaluation.samples import MOST_BYTES, samples_of, thumbnails_of
from llava.evaluation.statistics import Interval
from llava.evaluation.suite import Suite
from llava.evaluation.summary import gain
from llava.evaluation.table import Row, quoted
from llava.launcher_paths import artifact_uri
from llava.report import Bar, Card, Report, Sample

CARDS_A_KIND = 8
_MOST_CARDS = 120


def build_report(suite: Suite, results: Sequence[Result], profile: Profile, facts: Sequence[Fact]) -> Report:
    """The page; in each result the first contender is the model under test, the others are what it is measured by."""
    first = results[0]
    names = suite.title or ", ".join(result.column.key for result in results)
    asked = sum(len(result.work.questions) for result in results)
    report = Report(f"Evaluation: {names}", f"{asked} questions; model {artifact_uri(first.answered[0].uri)}")
    if suite.several:
        report.figures({"benchmarks": len(results), "questions": asked, "without an answer": _left_out(results)})
        columns, rows = table_of(suite, results)
        report.table("Table", columns, rows)
        report.text(
            "Each column in the unit people quote. Published rows are the papers' own values, for the eye: they were "
            "made with other code, and where a column says judge or names a file, the figure is made elsewhere."
        )
    report.text(_how(first, profile))
    for result in results:
        _benchmark(report, result, profile, several=suite.several)
    report.explorer("Every question", *_explored(suite, results, profile))
    _not_answered(report, results)
    report.facts("Where this comes from", facts)
    return report


def table_of(suite: Suite, results: Sequence[Result]) -> tuple[list[str], list[Row]]:
    """The quotable table: the model under test and what it is measured by, then published rows."""
    figures: dict[str, dict[str, Interval | str]] = {}
    for result in results:
        figure = result.column.figure or result.benchmark.headline
        for item, summary in zip(result.answered, result.summaries, strict=True):
            own = figures.setdefault(item.title, {})
            if figure in summary.figures:
                own[result.column.key] = summary.figures[figure]
            elif item.title in result.verdicts:
                own[result.column.key] = result.verdicts[item.title].figure(figure) or "judge"
            elif item.title in result.handed_in:
                own[result.column.key] = "to hand in"
            elif isinstance(result.benchmark, Judged) and not item.blind:
                own[result.column.key] = "judge"
    return quoted(suite, figures)


def _how(result: Result, profile: Profile) -> str:
    """The statement that stands beside the figures: reading of answers, intervals, engine, dtype and batch."""
    said = (
        f"Scores are those of profile {profile}. Ranges are 95 % intervals: questions about one image count as the few "
        "independent ones they are worth; differences are bootstrapped over images, both models together. "
        f"Answers: {result.answered[0].engine}, greedy. "
    )
    engine = result.answered[0]
    if not engine.batched:
        return said + "How the server batches and in which type it computes is its own matter, and can change answers."
    if "float32" in engine.engine:
        return said + "In float32 an answer does not depend on the batch it was computed in."
    return said + (
        "In half precision two tokens can tie within rounding, so another batch size (or card) may change a few "
        "answers; float32 (--dtype float32) gives the same answers whatever the batch."
    )


def _benchmark(report: Report, result: Result, profile: Profile, *, several: bool) -> None:
    model, *others = result.summaries
    headline = result.benchmark.headline
    prefix = f"{result.column.title or result.column.key}: " if several else ""
    if several:
        report.heading(result.column.title or result.column.key)
    report.figures(
        {
            f"{headline} ({summary.title})": _shown(headline, summary.figures[headline].value)
            for summary in result.summaries
            if headline in summary.figures
        }
        | {
            f"{headline} ({title}, judge)": f"{judged.value:.4g}"
            for title, found in result.verdicts.items()
            if (judged := found.figure(headline))
        }
        | {"questions": len(result.work.questions), "without an answer": len(result.left_out)}
    )
    if model.scored:
        report.text(
            f"The other profile gives another score on {model.differing} of {len(model.scored)} answers of the model."
        )
    for note in result.benchmark.notes():
        report.text(note)
    for title, found in result.verdicts.items():
        report.text(f"{title}: judged by {found.by} on {found.date}.")
    if not model.scored and not isinstance(result.benchmark, Judged):
        files = "; ".join(f"{title}: {name}" for title, name in result.handed_in.items())
        report.text(
            "The right answers to these questions are not known here, so there are no scores"
            + (f": hand in the file that stands beside the predictions ({files})." if files else ".")
        )
    rows: list[list[float | str | None]] = []
    for summary in result.summaries:
        for name, value in summary.figures.items():
            rows.append([summary.title, name, *_cells(value)])
    for other in others:
        if other.scored:
            value = gain(result.benchmark, model, other, profile)
            rows.append([model.title, f"gain of {headline} over {other.title}", *_cells(value)])
    if rows:
        report.table(f"{prefix}Figures", ["model", "figure", "value", "from", "to", "questions"], rows)
    bars = [
        Bar(kind, summary.by_kind[kind].value, summary.by_kind[kind].low, summary.by_kind[kind].high, summary.title)
        for kind in model.by_kind
        for summary in result.summaries
        if kind in summary.by_kind
    ]
    if bars:
        report.bar_chart(f"{prefix}Score by kind of question", bars, y="mean score")
    if not several and model.scored:
        report.gallery("Questions and answers", _cards(result, profile))


def _cells(value: Interval) -> list[float | str | None]:
    return [round(value.value, 4), round(value.low, 4), round(value.high, 4), value.n]


def _cards(result: Result, profile: Profile) -> list[Card]:
    """A few of each kind, shown without any script."""
    model, *others = result.summaries
    chosen = _sample(model.scored, profile)
    found, _ = result.images.load_all([ref for item in chosen for ref in item.question.images[:1]])
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
                [*lines, f"id {question.id}"],
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
    return chosen[:_MOST_CARDS]


def _explored(
    suite: Suite, results: Sequence[Result], profile: Profile
) -> tuple[Iterator[Sample], list[str], list[str], dict[str, bytes]]:
    def keyed() -> Iterator[tuple[str, Result]]:
        for result in results:
            yield (result.column.key if suite.several else ""), result

    samples = (
        sample
        for key, result in keyed()
        for sample in samples_of(
            key, result.work.questions, result.answers, {each.title: each.scored for each in result.summaries}
        )
    )
    thumbnails: dict[str, bytes] = {}
    for key, result in keyed():
        wanted = _interesting_first(result, profile)
        thumbnails |= thumbnails_of(key, wanted, result.images, MOST_BYTES // len(results))
    profiles: list[str] = [profile, *(other for other in PROFILES if other != profile)]
    return samples, [item.title for item in results[0].answered], profiles, thumbnails


def _interesting_first(result: Result, profile: Profile) -> list[Question]:
    """Wrong answers first: where not every image has room in a page, those are looked at."""
    wrong = {item.question.id for item in result.summaries[0].scored if item.scores[profile] < 0.5}
    return sorted(result.work.questions, key=lambda question: question.id not in wrong)


def _not_answered(report: Report, results: Sequence[Result]) -> None:
    lines: list[list[float | str | None]] = [
        [result.column.key, key, item.problem, item.why] for result in results for key, item in result.left_out.items()
    ]
    if lines:
        report.table("Questions that could not be asked", ["benchmark", "question", "problem", "why"], lines[:200])


def _left_out(results: Sequence[Result]) -> int:
    return sum(len(result.left_out) for result in results)


def _shown(headline: str, value: float) -> str:
    return f"{100 * value:.1f} %" if headline in ("accuracy", "f1") else f"{value:.4g}"
