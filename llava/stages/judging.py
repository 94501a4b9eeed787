"""A judge over finished predictions: asked within a budget, every reply in a ledger, online or by batch files.

The benchmark says what to ask and how to read a reply; ledger, budget, retries and batch files are the expansion's.
Both are siblings that do not know each other, so they meet here.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llava import storage
from llava.errors import DataError, SettingsError
from llava.evaluation.benchmark import Question
from llava.evaluation.benchmarks import get_benchmark
from llava.evaluation.judged import Judged, Verdict
from llava.evaluation.question_files import json_lines
from llava.evaluation.verdicts import VerdictFile, VerdictRow, answers_hash, verdicts_uri
from llava.expansion.asking.batch_files import export_batches, import_batches
from llava.expansion.asking.dispatch import Outcome
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.settled import settle
from llava.expansion.asking.teaching import TeacherSettings, ask_all
from llava.expansion.recipe.kinds import Sampling
from llava.expansion.recipe.requests import Request, RequestMaker
from llava.expansion.sources.corpus import AnnotatedImage
from llava.expansion.teachers.base import Reply
from llava.telemetry import Telemetry

KIND = "evaluation-judge"


@dataclass(frozen=True)
class Judging:
    """One model's answers to a judged benchmark, and the judge.

    Attributes:
        answers: by question id.
        ledger_uri: where every reply of the judge is kept.
        predictions_uri: the file they stand in; verdicts and figures go beside it.
        extra_body: fields of the request that replace the benchmark's own (a null takes one out).
        max_unjudged: largest share of answers that may stay without a verdict.
    """

    benchmark: Judged
    questions: Sequence[Question]
    answers: Mapping[str, str]
    judge: TeacherSettings
    ledger_uri: str
    predictions_uri: str
    extra_body: Mapping[str, object] | None = None
    max_unjudged: float = 0.01

    def requests(self) -> list[tuple[Question, Request]]:
        """What the judge is asked, in the order of the questions."""
        benchmark = self.benchmark
        prefix = [{"role": "system", "content": benchmark.judge_system}] if benchmark.judge_system else []
        sampling = Sampling(temperature=benchmark.judge_temperature, max_tokens=benchmark.judge_max_tokens)
        maker = RequestMaker(KIND, prefix, self.judge.model_name, sampling, self.extra_body)
        made = []
        for question in self.questions:
            if question.id in self.answers:
                image = AnnotatedImage(question.id, None, 0, 0, ())
                made.append(
                    (question, maker.request(image, benchmark.judge_prompt(question, self.answers[question.id])))
                )
        return made

    def unusable(self, kind: str, reply: Reply) -> str:
        """Why a reply is no verdict; such a reply is paid for, recorded and asked again, within the limits."""
        if reply.finish_reason == "content_filter":
            return "judge: refused"
        probe = Question("", (), "", "", "", "")
        return "" if self.benchmark.verdict(probe, reply.text) else "judge: no score in the reply"


def open_judging(
    benchmark: str,
    questions_uri: str,
    predictions: str,
    judge: TeacherSettings,
    *,
    contender: str = "finetuned",
    ledger_uri: str = "",
    extra_body: Mapping[str, object] | None = None,
    max_unjudged: float = 0.01,
) -> Judging:
    """Read questions and answers.

    Raises:
        SettingsError: the benchmark is not one that a judge scores.
        DataError: there are no answers, or none to these questions.
    """
    chosen = get_benchmark(benchmark)
    if not isinstance(chosen, Judged):
        raise SettingsError(f"benchmark: found {benchmark!r}; it is scored without a judge (llava evaluate)")
    questions = chosen.read(questions_uri)
    file = predictions if predictions.endswith(".jsonl") else storage.join(predictions, f"{contender}.jsonl")
    answers = {str(row.get("id")): str(row.get("answer", "")) for _, row in json_lines(file)}
    known = {question.id for question in questions}
    if not known & set(answers):
        raise DataError(f"{file}: no answer to a question of {questions_uri}; expected the predictions of {benchmark}")
    ledger = ledger_uri or f"{file.removesuffix('.jsonl')}-judge-ledger"
    return Judging(chosen, questions, answers, judge, ledger, file, extra_body, max_unjudged)


def judge_online(judging: Judging, telemetry: Telemetry) -> dict[str, float]:
    """Ask what the ledger lacks, then score. Killed or out of budget, nothing paid for is asked again.

    Raises:
        DataError: it stopped before all were asked, or too many answers have no verdict.
    """
    ledger = Ledger(judging.ledger_uri, f"judge {judging.predictions_uri}", telemetry.note)
    try:
        made = judging.requests()

        def progress(outcome: Outcome) -> None:
            telemetry.progress("verdicts", outcome.answered + outcome.dropped + outcome.failed, len(made))

        requests = [request for _, request in made]
        outcome = ask_all(requests, judging.judge, ledger, unusable=judging.unusable, progress=progress)
        if outcome.stopped:
            hint = "; raise max_cost" if outcome.budget else ""
            raise DataError(
                f"judge: {outcome.stopped}; {len(ledger)} verdicts are safe in {judging.ledger_uri} and will not be "
                f"asked for again{hint}"
            )
        return score(judging, ledger, telemetry)
    finally:
        ledger.close()


def export_judge_batch(judging: Judging, folder: str) -> list[tuple[str, int, int]]:
    """Write what the ledger lacks as provider batch files: (uri, requests, bytes) of each."""
    ledger = Ledger(judging.ledger_uri, "judge export")
    try:
        return export_batches([request for _, request in judging.requests()], ledger, folder, judging.unusable)
    finally:
        ledger.close()


def import_judge_batch(judging: Judging, uris: Sequence[str], telemetry: Telemetry) -> dict[str, float]:
    """Read the answers of batch files into the ledger, then score.

    Raises:
        DataError: no line answers this job, or too many answers have no verdict.
    """
    ledger = Ledger(judging.ledger_uri, "judge import", telemetry.note)
    try:
        requests = [request for _, request in judging.requests()]
        import_batches(uris, ledger, requests, judging.unusable, judging.judge.price())
        return score(judging, ledger, telemetry)
    finally:
        ledger.close()


def score(judging: Judging, ledger: Ledger, telemetry: Telemetry) -> dict[str, float]:
    """Verdicts and figures from the ledger, with the judge's own name and the date, written beside the predictions.

    Raises:
        DataError: more answers without a verdict than `max_unjudged`.
    """
    verdicts: list[Verdict] = []
    rows: list[VerdictRow] = []
    judges: dict[str, int] = {}
    missing: list[str] = []
    for question, request in judging.requests():
        entry, problem = settle(ledger, request, judging.unusable)
        found = judging.benchmark.verdict(question, entry.text) if entry and not problem else None
        if entry is None or found is None:
            missing.append(question.id)
            rows.append(VerdictRow(id=question.id, problem=problem or "not asked"))
            continue
        judges[entry.model] = judges.get(entry.model, 0) + 1
        verdicts.append(found)
        rows.append(
            VerdictRow(
                id=question.id,
                score=found.score,
                reference=found.reference,
                share=found.score / judging.benchmark.highest,
                judge=entry.model,
                reply=entry.text,
            )
        )
    unasked = len(judging.questions) - len(rows)
    if len(missing) > judging.max_unjudged * len(rows):
        reasons = sorted({row.problem for row in rows if row.problem})
        raise DataError(
            f"judge: {len(missing)} of {len(rows)} answers have no verdict ({'; '.join(reasons)}), the first: "
            f"{missing[0]}; expected at most {judging.max_unjudged:g} of them. They are left out, never counted as zero"
        )
    figures = judging.benchmark.judged_figures(verdicts)
    metrics = {"judged": float(len(verdicts)), "unjudged": float(len(missing)), "not_answered": float(unasked)}
    metrics["judge_cost"] = ledger.cost
    for name, value in figures.items():
        metrics |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
    summary = VerdictFile(
        benchmark=judging.benchmark.name,
        judges=judges,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        published_judge=judging.benchmark.published_judge,
        answers_hash=answers_hash(judging.answers),
        figures=metrics,
        verdicts=rows,
    )
    storage.write_json(verdicts_uri(judging.predictions_uri), summary.model_dump(mode="json"))
    best = figures[judging.benchmark.headline]
    telemetry.note(
        f"{judging.benchmark.name}: {judging.benchmark.headline} {100 * best.value:.1f} ({100 * best.low:.1f} to "
        f"{100 * best.high:.1f}) by {summary.by} on {summary.date}; {len(missing)} without a verdict"
    )
    return metrics
