"""An evaluation from its questions to its report: the one conductor of this package.

Questions of every benchmark are read before a model is loaded; each contender is loaded once and answers them all (in
several processes where there are several GPUs); then answers are scored, kept, and shown in one report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llava import storage
from llava.errors import SettingsError, UserError
from llava.evaluation import presentation, summary
from llava.evaluation.asking import Answered, Work, answer_share, check_left_out
from llava.evaluation.benchmark import Benchmark, Profile
from llava.evaluation.benchmarks import get_benchmark
from llava.evaluation.contenders import Lineup
from llava.evaluation.finished import finish
from llava.evaluation.judged import Judged
from llava.evaluation.predictions import PredictionLog
from llava.evaluation.provenance import facts
from llava.evaluation.question_ids import check_ids
from llava.evaluation.question_images import Images
from llava.evaluation.ranks import answer_shared
from llava.evaluation.result import Result
from llava.evaluation.suite import Column, Suite, places
from llava.evaluation.table import as_text
from llava.evaluation.verdicts import VerdictFile, verdicts_on
from llava.telemetry import Telemetry


@dataclass(frozen=True)
class Job:
    """One evaluation.

    Attributes:
        suite: the benchmarks.
        lineup: the contenders.
        questions_uri: of the benchmark, or the folder that holds each benchmark's.
        images_uri: root of the images; empty: where the benchmarks usually have them.
        profile: how answers are read for the figures.
        max_new_tokens: longest answer; 0: what each benchmark needs.
        limit: ask only the first so many questions of each; 0: all.
        max_bad_rows: largest share of questions without an answer.
        ranks: processes that share the questions.
        predictions: folder for the answers.
        report: URI of the page.
        spent: what has been spent when the page is written: name -> amount.
    """

    suite: Suite
    lineup: Lineup
    questions_uri: str
    images_uri: str
    profile: Profile
    max_new_tokens: int
    limit: int
    max_bad_rows: float
    ranks: int
    predictions: str
    report: str
    spent: Callable[[], Mapping[str, float]] = dict


def evaluate(job: Job, telemetry: Telemetry) -> dict[str, float]:
    """Ask, score, report.

    Returns:
        Flat figures; of several benchmarks each with the benchmark's key in front.

    Raises:
        UserError: questions, images, model or engine cannot be used; what was answered is kept.
    """
    if job.lineup.endpoint and job.ranks > 1:
        raise SettingsError("processes: an endpoint is asked by one process; expected 1 or auto, and more concurrency")
    entries = [_work(job, *place) for place in places(job.suite, job.questions_uri, job.images_uri)]
    works = [work for _, work in entries]
    total = sum(len(work.questions) for work in works)
    telemetry.note(f"{', '.join(work.key for work in works)}: {total} questions; loading {job.lineup.model}")
    if job.ranks > 1:
        answered = answer_shared(job.lineup, works, telemetry, job.ranks)
    else:
        answered = answer_share(
            job.lineup,
            works,
            telemetry,
            each=lambda item, work: check_left_out(work, item.left_out, job.max_bad_rows),
        )
    by_key = {work.key: work for work in works}
    for item in answered:
        check_left_out(by_key[item.work], item.left_out, job.max_bad_rows)
    results = [
        _result(job, column, work, [item for item in answered if item.work == work.key], telemetry)
        for column, work in entries
    ]
    metrics = _metrics(job, results)
    models = {item.title: item.uri for item in results[0].answered if not item.blind}
    page = presentation.build_report(
        job.suite,
        results,
        job.profile,
        facts(
            models,
            {work.key: (work.uri, work.questions) for work in works},
            results[0].answered[0].engine,
            job.report,
            job.spent(),
        ),
    )
    page.write(job.report)
    if job.suite.several:
        telemetry.note("\n" + as_text(*presentation.table_of(job.suite, results)))
    return metrics


def _work(job: Job, column: Column, questions_uri: str, images_uri: str) -> tuple[Column, Work]:
    benchmark = get_benchmark(column.benchmark)
    questions = benchmark.read(questions_uri)
    check_ids(questions, questions_uri)
    work = Work(
        key=column.key,
        benchmark=benchmark.name,
        uri=questions_uri,
        questions=questions[: job.limit or column.limit or None],
        images_uri=images_uri or benchmark.images_uri(questions_uri),
        folder=storage.join(job.predictions, column.key) if job.suite.several else job.predictions,
        max_new_tokens=job.max_new_tokens or benchmark.max_new_tokens,
    )
    return column, work


def _result(job: Job, column: Column, work: Work, answered: Sequence[Answered], telemetry: Telemetry) -> Result:
    """Score one benchmark, and write what is kept of it."""
    benchmark = get_benchmark(column.benchmark)
    summaries, said, handed_in, verdicts = [], {}, {}, {}
    for item in answered:
        log = item.log(work)
        scored = [benchmark.scored(q, log.answers[q.id]) for q in work.questions if q.known and q.id in log.answers]
        finish(log, work, item, benchmark, scored)
        summaries.append(summary.summarise(benchmark, item.name, item.title, scored, job.profile))
        said[item.title] = dict(log.answers)
        if not item.blind:
            if name := _hand_in(benchmark, work, item, log.answers, telemetry):
                handed_in[item.title] = name
            if found := _verdicts(log, benchmark, telemetry):
                verdicts[item.title] = found
    best = summaries[0].figures.get(benchmark.headline)
    if best:
        shown = f"{best.value:.4f} ({best.low:.4f} to {best.high:.4f})"
        telemetry.note(f"{work.key}: {benchmark.headline} {shown}")
    return Result(
        column, benchmark, work, Images(work.images_uri), tuple(answered), tuple(summaries), said, handed_in, verdicts
    )


def _hand_in(benchmark: Benchmark, work: Work, item: Answered, answers: dict[str, str], telemetry: Telemetry) -> str:
    """Write the file for the benchmark's server, where there is one; its name."""
    handed_in = benchmark.submission(work.uri, work.questions, answers)
    if not handed_in:
        return ""
    name = f"{item.name}-{handed_in.name}"
    storage.write_bytes(storage.join(work.folder, name), handed_in.data)
    empty = f", {handed_in.empty} of them without an answer" if handed_in.empty else ""
    telemetry.note(f"{name}: {handed_in.rows} rows{empty}, for {handed_in.server}")
    return name


def _verdicts(log: PredictionLog, benchmark: Benchmark, telemetry: Telemetry) -> VerdictFile | None:
    """What a judge has said of these very answers, if one has been asked."""
    if not isinstance(benchmark, Judged):
        return None
    try:
        return verdicts_on(log.uri, log.answers)
    except UserError as error:
        telemetry.note(f"verdicts left out: {error}")
        return None


def _metrics(job: Job, results: Sequence[Result]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for result in results:
        own = summary.metrics_of(result.benchmark, result.summaries, job.profile)
        if found := result.verdicts.get(result.answered[0].title):
            own |= {name: value for name, value in found.figures.items() if name.startswith(result.benchmark.headline)}
        own["questions"] = float(len(result.answers[result.answered[0].title]))
        own["questions_scored"] = float(len(result.summaries[0].scored))
        own["questions_left_out"] = float(len(result.left_out))
        storage.write_json(storage.join(result.work.folder, "summary.json"), own)
        prefix = f"{summary.slug(result.column.key)}_" if job.suite.several else ""
        metrics |= {f"{prefix}{name}": value for name, value in own.items()}
    if job.suite.several:
        metrics["benchmarks"] = float(len(results))
        metrics["questions"] = float(sum(len(result.answers[result.answered[0].title]) for result in results))
        metrics["questions_scored"] = float(sum(len(result.summaries[0].scored) for result in results))
        metrics["questions_left_out"] = float(sum(len(result.left_out) for result in results))
    return metrics


def headline_of(metrics: dict[str, float], suite: Suite) -> float | None:
    """The single figure of a run of one benchmark."""
    if suite.several:
        return None
    return metrics.get(get_benchmark(suite.benchmarks[0].benchmark).headline)
