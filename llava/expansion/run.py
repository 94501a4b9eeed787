"""The conductor: one expansion from its settings to rows, report and card, each step in the package that owns it.

images (`sources`) -> requests (`recipe`) -> replies in the ledger (`asking`, `teachers`) -> what the gates let through
(`gates`) and second opinions (`opinions`) -> rows (`rows`) -> what a reader sees (`showing`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from llava.errors import DataError, SettingsError
from llava.expansion.asking.dispatch import Outcome
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.reopening import reopen
from llava.expansion.asking.settled import still_open
from llava.expansion.asking.teaching import OFFLINE, TeacherSettings, ask_all, ask_in_batches
from llava.expansion.gates import Panel
from llava.expansion.gates.form_check import form_check, gate_check
from llava.expansion.job import Job
from llava.expansion.opinions.conduct import ask_judge, check_judge, open_judge
from llava.expansion.opinions.judge import Judge, JudgeSettings
from llava.expansion.opinions.similarity import Similarity, SimilaritySettings
from llava.expansion.rows.assembly import Opined, Result, assemble
from llava.expansion.rows.building import Built, RowOptions, build_rows, write_naive
from llava.expansion.rows.sampling import Sampler
from llava.expansion.showing.live import LivePage
from llava.expansion.showing.publishing import OFFLINE_WARNING, Run, publish
from llava.telemetry import Telemetry


@dataclass(frozen=True)
class Places:
    """Where an expansion writes; `ledger` may be shared between runs."""

    pretrain: str
    instruct: str
    report: str
    ledger: str


@dataclass(frozen=True)
class Checks:
    """What is looked at, and how much may be wrong.

    Attributes:
        gates_off: names of the gates left out.
        judge: who gives a second opinion, and on what.
        similarity: which model scores rows against their images.
        preview_rows: rows per kind and gate in the report.
        max_dropped: largest share of replies dropped or missing.
        allow_partial: build rows from what was answered when the budget is used up.
        retry_dropped: gates (or `teacher`, or `all`) whose dropped requests are asked again.
    """

    gates_off: frozenset[str] = frozenset()
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    similarity: SimilaritySettings = field(default_factory=SimilaritySettings)
    preview_rows: int = 12
    max_dropped: float = 0.5
    allow_partial: bool = False
    retry_dropped: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Expansion:
    """One expansion, resolved.

    Attributes:
        shown: settings for manifests and reports, free of secrets.
    """

    job: Job
    teacher: TeacherSettings
    rows: RowOptions
    checks: Checks
    places: Places
    shown: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Expanded:
    """What an expansion made; `numbers` are finite."""

    numbers: dict[str, float]
    naive: int
    rows: int
    data_hash: str


def check(teacher: TeacherSettings, checks: Checks) -> None:
    """What can be refused before annotations are read or anything is paid.

    Raises:
        SettingsError: no price for a budget, or an offline judge.
    """
    teacher.price()
    if teacher.mode == "batch":
        teacher.open_batches()
    check_judge(checks.judge, teacher)


def expand(expansion: Expansion, telemetry: Telemetry) -> Expanded:
    """Ask for what the ledger lacks and write both data files, the report, the card and the manifests.

    Raises:
        DataError: the teacher stopped, or more replies are bad than allowed.
        SettingsError: the ledger is open elsewhere, or the recipe has no judge.
    """
    job, checks, places = expansion.job, expansion.checks, expansion.places
    if expansion.teacher.teacher == OFFLINE and job.taught:
        telemetry.note(f"WARNING: {OFFLINE_WARNING}")
    telemetry.note(f"{len(job.corpus):,} images, {len(job.corpus.categories)} categories")
    for warning in job.warnings:
        telemetry.note(f"WARNING: {warning}")
    for problem in job.corpus.problems[:5]:
        telemetry.note(f"left out: {problem}")
    naive = write_naive(job, expansion.rows, places.pretrain)
    telemetry.note(f"{naive:,} naive pairs in {places.pretrain}")

    with ExitStack() as opened:
        ledger = Ledger(places.ledger, f"expand to {places.instruct}", telemetry.note)
        opened.callback(ledger.close)
        judge, similarity, opinions = None, None, list[Opined]()
        if checks.similarity.model:
            thresholds = checks.similarity.read(kind.name for kind in job.taught)
            similarity = Similarity(checks.similarity.model, f"{places.ledger}.similarity", thresholds)
        if checks.judge.asked:
            judge = open_judge(job, checks.judge, expansion.teacher, f"{places.ledger}.judge", telemetry, opened)
        total = _ask(expansion, ledger, telemetry)
        if similarity is not None:
            _compare(expansion, ledger, similarity, telemetry)
            opinions.append(similarity)
        if judge is not None and checks.judge.rows == "all":
            _judge_all(expansion, ledger, judge, opinions, telemetry)
            opinions.append(judge)
        if similarity is not None:
            similarity.reset()
        sampler = Sampler(max(checks.preview_rows, checks.judge.sample))
        panel = _panel(expansion)
        built = build_rows(
            job,
            ledger,
            panel,
            sampler,
            places.instruct,
            options=expansion.rows,
            unusable=form_check(job.recipe),
            progress=lambda done, dropped: telemetry.progress("rows", done, total, dropped=dropped),
            opinions=opinions,
        )
        _refuse_many_drops(checks, built, panel, total)
        if judge is not None and checks.judge.rows == "sample":
            _judge_sample(expansion, ledger, judge, sampler, telemetry)
        run = Run(
            job, ledger, panel, sampler, built, judge, similarity, tuple(opined.name for opined in opinions), naive,
            expansion.teacher.currency, expansion.shown,
        )  # fmt: skip
        numbers = publish(run, pretrain_uri=places.pretrain, instruct_uri=places.instruct, report_uri=places.report)
        return Expanded(numbers, naive, built.rows, job.corpus.sha256)


def _panel(expansion: Expansion) -> Panel:
    job = expansion.job
    return Panel(job.recipe, job.corpus.categories, blocked=job.blocked, off=set(expansion.checks.gates_off))


def _results(expansion: Expansion, ledger: Ledger, opinions: Sequence[Opined] = ()) -> Iterator[Result]:
    """What became of every request, by a panel of its own."""
    job = expansion.job
    return assemble(
        job.requests(),
        ledger,
        job.recipe,
        _panel(expansion),
        unusable=form_check(job.recipe),
        image_position="before",
        seed=job.seed,
        opinions=opinions,
    )


def _ask(expansion: Expansion, ledger: Ledger, telemetry: Telemetry) -> int:
    """Fill the ledger, stop where the teacher or the budget does; returns the number of requests, answered ones too."""
    job = expansion.job
    blind = [kind.name for kind in job.taught if kind.context.shows == "image"]
    if blind and expansion.teacher.teacher == OFFLINE:
        raise SettingsError(
            f"kinds: {', '.join(blind)} shows the image alone, and the offline teacher sees none; set teacher to openai"
        )
    for note in ledger.notes:
        telemetry.note(f"ledger: {note}")
    unusable, off = form_check(job.recipe), set(expansion.checks.gates_off)
    if expansion.checks.retry_dropped:
        telemetry.note(f"{_reopen(expansion, ledger):,} dropped requests are asked again")
    total = sum(1 for _ in job.requests())
    missing = sum(1 for _ in still_open(job.requests(), ledger, unusable))
    if not missing:
        return total
    telemetry.note(f"{missing:,} replies to ask for")

    warning = OFFLINE_WARNING if expansion.teacher.teacher == OFFLINE else ""
    live = LivePage(expansion.places.report, missing, expansion.teacher.currency, warning)

    def progress(outcome: Outcome) -> None:
        live.update(outcome, ledger.cost)
        done = outcome.answered + outcome.dropped + outcome.failed
        faults = sum(outcome.faults.values())
        telemetry.progress("replies", done, missing, cost=round(ledger.cost, 4) or None, faults=faults or None)
        telemetry.gauge("teacher_cost", ledger.cost)
        telemetry.gauge("teacher_replies", outcome.replies)

    judged = gate_check(job.recipe, job.corpus.categories, off)
    if expansion.teacher.mode == "batch":
        outcome = ask_in_batches(
            job.requests, expansion.teacher, ledger, unusable=unusable, judged=judged, note=telemetry.note,
            progress=progress,
        )  # fmt: skip
    else:
        outcome = ask_all(
            job.requests(),
            expansion.teacher,
            ledger,
            unusable=unusable,
            judged=judged,
            progress=progress,
        )
    if outcome.stopped:
        live.update(outcome, ledger.cost, stopped=outcome.stopped)
    for fault, number in outcome.faults.most_common(5):
        telemetry.note(f"{number} x {fault}")
    if ledger.possibly_billed:
        telemetry.note(
            f"{ledger.possibly_billed:.4f} {expansion.teacher.currency} of the cost are possibly billed: "
            "the provider may charge for it, though no reply came"
        )
    if outcome.failed:
        telemetry.note(f"{outcome.failed:,} requests given up after all retries; the next run asks them again")
    if outcome.stopped and not (outcome.budget and expansion.checks.allow_partial):
        hint = "raise max_cost, or set allow_partial to build rows from what was answered" if outcome.budget else ""
        raise DataError(
            f"teacher: {outcome.stopped}; {len(ledger):,} replies are safe in {ledger.uri} and will not be asked again"
            + (f"; {hint}" if hint else "")
        )
    if outcome.stopped:
        telemetry.note(f"stopped: {outcome.stopped}; building rows from what was answered")
    return total


def _reopen(expansion: Expansion, ledger: Ledger) -> int:
    """Make dropped requests count as never asked. A Kubeflow retry of the same task does not do it again: what it finds
    dropped may be what the first attempt has just asked again."""
    if int(os.environ.get("KFP_RETRY_INDEX") or 0):
        return 0
    checks = expansion.checks
    dropped = (
        result.request
        for result in _results(expansion, ledger)
        if result.row is None
        and result.entry is not None
        and ("all" in checks.retry_dropped or result.reason.partition(":")[0] in checks.retry_dropped)
    )
    return reopen(dropped, ledger)


def _refuse_many_drops(checks: Checks, built: Built, panel: Panel, total: int) -> None:
    dropped = sum(built.dropped.values())
    # Requests that the budget left unasked are the user's choice.
    counted = dropped - built.unanswered if checks.allow_partial else dropped
    if total and counted > checks.max_dropped * total:
        worst = ", ".join(f"{gate} {number}" for gate, number in panel.hard.most_common(3)) or "no replies"
        raise DataError(
            f"teacher: {counted} of {total} replies dropped or missing, more than max_dropped "
            f"({checks.max_dropped:g}); most by {worst}; see the .dropped.jsonl beside instruct_data"
        )


def _compare(expansion: Expansion, ledger: Ledger, similarity: Similarity, telemetry: Telemetry) -> None:
    """Score what has no score yet."""
    images_uri = str(expansion.shown["images_uri"])
    if not images_uri:
        raise SettingsError("images_uri: empty; clip_model compares rows with their images")
    began = similarity.fill(
        _results(expansion, ledger), images_uri, lambda done: telemetry.progress("rows scored", done, None)
    )
    telemetry.note(f"{began:,} rows scored by {similarity.model}; the others had a score")


def _judge_all(
    expansion: Expansion, ledger: Ledger, judge: Judge, before: Sequence[Opined], telemetry: Telemetry
) -> None:
    """Ask about every row that passed the gates and `before`; and about some that did not, in case they are good."""
    checks = expansion.checks
    sampler = Sampler(checks.judge.sample)

    def asked_about() -> Iterator[Result]:
        for result in _results(expansion, ledger, before):
            if result.row is not None:
                yield result
            elif result.entry is not None:
                sampler.see(result)
        yield from (result for _, result in sampler.results())

    telemetry.note(f"{judge.model} scores every row")
    ask_judge(
        judge, judge.requests(asked_about()), checks.judge, expansion.teacher, ledger.cost, telemetry,
        may_stop=checks.allow_partial,
    )  # fmt: skip
    for (_, gate), result in sampler.results():
        judge.see(result, gate)


def _judge_sample(expansion: Expansion, ledger: Ledger, judge: Judge, sampler: Sampler, telemetry: Telemetry) -> None:
    """Ask about a sample, kept and dropped; rows stay as they are, whatever the judge says."""
    results = sampler.results(expansion.checks.judge.sample)
    ask_judge(
        judge, judge.requests(result for _, result in results), expansion.checks.judge, expansion.teacher, ledger.cost,
        telemetry, may_stop=True,
    )  # fmt: skip
    for (_, gate), result in results:
        judge.see(result, gate)
