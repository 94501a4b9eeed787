"""Data expansion: captions and boxes in, LLaVA rows out.

`pretrain_data` gets naive pairs (stage 1). `instruct_data` gets what `kinds` asks for: rows written by a teacher
(conversation, detail, reasoning, and whatever the expansion recipe adds), naive pairs with questions, regions; mixed
with external data where a mixture is named. Beside `instruct_data` stand the ledger of everything the teacher was
asked (`.ledger/`), a line of provenance for each row (`.provenance.jsonl`), each dropped reply with its reason
(`.dropped.jsonl`) and a dataset card (`.card.md`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from llava.errors import DataError, SettingsError
from llava.stages.stage import Stage, StageInputs, StageOutputs, StageResult, StageSettings, output

if TYPE_CHECKING:
    from llava.expansion.building import Built
    from llava.expansion.gates import Panel
    from llava.expansion.job import Job
    from llava.expansion.judge import Agreement
    from llava.expansion.ledger import Ledger
    from llava.expansion.sampling import Sampler
    from llava.expansion.teaching import TeacherSettings
    from llava.telemetry import Telemetry


class Settings(StageSettings):
    """What to expand, by whom, how much of it and for how much."""

    annotations_uri: str = Field(
        description="COCO annotations folder, or comma-separated files: captions_*.json and instances_*.json, or "
        "image-caption lists (blip_laion JSON, JSON lines, CSV)"
    )
    images_uri: str = Field("", description="Folder or URI that image paths start from; only the preview reads it")
    image_prefix: str = Field("", description="Put before each file name in the rows, e.g. train2017")
    split: str = Field("train", description="Which files of an annotations folder: captions_<split>*.json")
    kinds: str = Field("conversation,detail,reasoning", description="Instruction rows to make; also: naive, region")
    expansion_recipe: str = Field("coco", description="Name, folder or URI of an expansion recipe")
    limit: int = Field(0, ge=0, description="Use only so many pictures; 0: all")
    seed: int = Field(0, description="Decides every random choice")

    teacher: Literal["offline", "openai"] = Field(
        "offline", description="offline: deterministic and free; openai: any OpenAI-compatible endpoint"
    )
    teacher_endpoint: str = Field("", description="Base URL of the endpoint; empty: the client's default")
    teacher_model: str = Field("", description="Model name as the endpoint knows it")
    max_cost: float = Field(
        0.0, ge=0, description="Budget in the price table's currency, with what the ledger already cost; 0: none"
    )
    allow_partial: bool = Field(False, description="When the budget is used up, build the rows from what was answered")
    prices: str = Field("", description="Price table (YAML); empty: the bundled one")
    requests_per_minute: float = Field(0.0, ge=0, description="Rate limit; 0: none")
    tokens_per_minute: float = Field(0.0, ge=0, description="Rate limit on input and output tokens; 0: none")
    concurrency: int = Field(32, ge=1, le=1024, description="Most requests in flight; fewer when the teacher is slow")
    request_timeout_s: float = Field(120.0, gt=0, description="Seconds before a request is given up and retried")
    max_retries: int = Field(8, ge=0, description="Retries of one request after errors that may pass")
    max_repairs: int = Field(2, ge=0, description="Further paid attempts after a reply that cannot be used")
    ledger_uri: str = Field("", description="Ledger folder shared between runs; empty: beside instruct_data")

    naive_form: Literal["plain", "question"] = Field(
        "plain", description="pretrain_data: the caption alone, or with a brief question"
    )
    captions_per_image: int = Field(1, ge=0, description="Naive pairs per picture in pretrain_data; 0: every caption")
    image_position: Literal["before", "after", "random"] = Field(
        "before", description="Image before or after the first question"
    )
    region_frame: Literal["original", "padded"] = Field(
        "padded", description="Region boxes as fractions of the original picture or of its padded square"
    )
    mixture: str = Field("", description="Mixture file (YAML) that combines generated and external data; empty: none")

    blocklist_uri: str = Field("", description="Files with ids or names of evaluation pictures, comma-separated")
    gates_off: str = Field("", description="Quality gates to leave out, comma-separated")
    judge_sample: int = Field(0, ge=0, description="Replies per kind and gate that a judge looks at; 0: no judge")
    judge_model: str = Field("", description="Judge's model at the same endpoint; empty: the teacher's")
    preview_rows: int = Field(12, ge=0, description="Rows per kind and gate in the report")
    max_bad_rows: float = Field(0.01, ge=0, le=1, description="Largest share of broken annotation rows")
    max_dropped: float = Field(0.5, ge=0, le=1, description="Largest share of replies dropped or missing")


class Inputs(StageInputs):
    """Nothing: annotations are too large to travel as artifacts and are named by URI in the settings."""


class Outputs(StageOutputs):
    """Rows for the two training stages."""

    pretrain_data: str = output("Naive pairs for feature alignment, LLaVA JSON", "file", "Dataset")
    instruct_data: str = output("Instruction rows, LLaVA JSON", "file", "Dataset")
    report: str = output("What was made, what was dropped, and a preview", "html", "HTML")
    metrics: str = output("Counts of rows, drops, tokens and cost", "metrics", "Metrics")


def run(settings: Settings, inputs: Inputs, outputs: Outputs) -> StageResult:
    """Make both data files.

    Raises:
        DataError: annotations cannot be used, the teacher stopped, or more rows or replies are bad than allowed.
        SettingsError: an unknown kind, recipe, gate or price, or no key for the teacher.
    """
    from llava.expansion.building import RowOptions, build_rows
    from llava.expansion.gates import Panel
    from llava.expansion.job import split_names
    from llava.expansion.ledger import Ledger
    from llava.expansion.sampling import Sampler
    from llava.telemetry import Telemetry

    teacher = teacher_settings(settings)
    teacher.price()
    if settings.judge_sample and settings.teacher == "offline":
        raise SettingsError(
            "judge_sample: the offline teacher cannot judge; set teacher to openai, or judge_sample to 0"
        )
    with Telemetry("expand", settings.teacher) as telemetry:
        job = job_of(settings, teacher.model_name)
        telemetry.note(f"{len(job.corpus):,} pictures, {len(job.corpus.categories)} categories")
        for problem in job.corpus.problems[:5]:
            telemetry.note(f"left out: {problem}")
        naive = _write_pretrain(settings, outputs.pretrain_data, job)
        telemetry.note(f"{naive:,} naive pairs in {outputs.pretrain_data}")

        panel = Panel(job.recipe, job.corpus.categories, blocked=job.blocked, off=set(split_names(settings.gates_off)))
        ledger = Ledger(
            settings.ledger_uri or f"{outputs.instruct_data}.ledger",
            f"expand to {outputs.instruct_data}",
            telemetry.note,
        )
        try:
            total = _ask(settings, teacher, job, ledger, telemetry)
            sampler = Sampler(max(settings.preview_rows, settings.judge_sample))
            built = build_rows(
                job,
                ledger,
                panel,
                sampler,
                outputs.instruct_data,
                options=RowOptions(settings.image_position, settings.region_frame),
                mixture=settings.mixture,
                progress=lambda done, dropped: telemetry.progress("rows", done, total, dropped=dropped),
            )
            _check_dropped(settings, built, panel, total)
            agreement = _judge(settings, teacher, job, ledger, sampler, telemetry) if settings.judge_sample else None
            return _publish(settings, teacher, outputs, job, ledger, panel, sampler, built, agreement, naive)
        finally:
            ledger.close()


def job_of(settings: Settings, model: str) -> Job:
    """The work that the settings describe, for a teacher of that name.

    Raises:
        DataError: annotations cannot be used.
        SettingsError: an unknown kind or recipe.
    """
    from llava.expansion.job import open_job

    return open_job(
        annotations_uri=settings.annotations_uri,
        split=settings.split,
        image_prefix=settings.image_prefix,
        kinds=settings.kinds,
        expansion_recipe=settings.expansion_recipe,
        model=model,
        limit=settings.limit,
        seed=settings.seed,
        blocklist_uri=settings.blocklist_uri,
        max_bad_rows=settings.max_bad_rows,
    )


def teacher_settings(settings: Settings) -> TeacherSettings:
    """The part of the settings that is about the teacher."""
    from llava.expansion.teaching import TeacherSettings

    return TeacherSettings(
        settings.teacher,
        settings.teacher_endpoint,
        settings.teacher_model,
        settings.prices,
        settings.max_cost,
        settings.requests_per_minute,
        settings.tokens_per_minute,
        settings.concurrency,
        settings.request_timeout_s,
        settings.max_retries,
        settings.max_repairs,
    )


def _write_pretrain(settings: Settings, uri: str, job: Job) -> int:
    from llava.expansion.naive import naive_rows
    from llava.expansion.rows import RowFile

    with RowFile(uri) as file:
        for row in naive_rows(
            job.pictures(),
            questions=job.recipe.questions[job.recipe.brief_questions],
            with_question=settings.naive_form == "question",
            image_position=settings.image_position,
            captions_per_image=settings.captions_per_image,
            seed=settings.seed,
        ):
            file.add(row.as_json())
    return file.count


def _ask(settings: Settings, teacher: TeacherSettings, job: Job, ledger: Ledger, telemetry: Telemetry) -> int:
    """Fill the ledger, stop where the teacher or the budget does; returns the number of requests, answered ones too."""
    from llava.expansion.dispatch import Outcome
    from llava.expansion.teaching import ask_all, form_check

    for note in ledger.notes:
        telemetry.note(f"ledger: {note}")
    total = missing = 0
    for request in job.requests():
        total += 1
        missing += request.id not in ledger
    if not missing:
        return total
    telemetry.note(f"{missing:,} replies to ask for")

    def progress(outcome: Outcome) -> None:
        done = outcome.answered + outcome.dropped + outcome.failed
        faults = sum(outcome.faults.values())
        telemetry.progress("replies", done, missing, cost=round(ledger.cost, 4) or None, faults=faults or None)
        telemetry.gauge("teacher_cost", ledger.cost)
        telemetry.gauge("teacher_replies", outcome.replies)

    outcome = ask_all(job.requests(), teacher, ledger, unusable=form_check(job.recipe), progress=progress)
    for fault, number in outcome.faults.most_common(5):
        telemetry.note(f"{number} x {fault}")
    if outcome.failed:
        telemetry.note(f"{outcome.failed:,} requests given up after all retries; the next run asks them again")
    if outcome.stopped and not (outcome.budget and settings.allow_partial):
        hint = "raise max_cost, or set allow_partial to build rows from what was answered" if outcome.budget else ""
        raise DataError(
            f"teacher: {outcome.stopped}; {len(ledger):,} replies are safe in {ledger.uri} and will not be asked again"
            + (f"; {hint}" if hint else "")
        )
    if outcome.stopped:
        telemetry.note(f"stopped: {outcome.stopped}; going on with what was answered")
    return total


def _check_dropped(settings: Settings, built: Built, panel: Panel, total: int) -> None:
    dropped = sum(built.dropped.values())
    # Requests that the budget left unasked are the user's choice.
    counted = dropped - built.unanswered if settings.allow_partial else dropped
    if total and counted > settings.max_dropped * total:
        worst = ", ".join(f"{gate} {number}" for gate, number in panel.hard.most_common(3)) or "no replies"
        raise DataError(
            f"teacher: {counted} of {total} replies dropped or missing, more than max_dropped "
            f"({settings.max_dropped:g}); most by {worst}; see the .dropped.jsonl beside instruct_data"
        )


def _judge(
    settings: Settings, teacher: TeacherSettings, job: Job, ledger: Ledger, sampler: Sampler, telemetry: Telemetry
) -> Agreement:
    from llava.expansion.judge import judge_requests, read_agreement, unusable_verdict
    from llava.expansion.teaching import ask_all

    if job.recipe.judge is None:
        raise SettingsError(f"judge_sample: expansion recipe {job.recipe.name!r} has no judge.yaml")
    model = settings.judge_model or settings.teacher_model
    requests = judge_requests(sampler.results(), job.recipe.judge, model)
    outcome = ask_all(
        iter([request for request, _ in requests]),
        teacher,
        ledger,
        unusable=unusable_verdict,
        progress=lambda outcome: telemetry.progress("judged", outcome.answered + outcome.dropped, len(requests)),
        model=model,
    )
    if outcome.stopped:
        telemetry.note(f"judge stopped: {outcome.stopped}")
    return read_agreement(requests, ledger)


def _publish(
    settings: Settings,
    teacher: TeacherSettings,
    outputs: Outputs,
    job: Job,
    ledger: Ledger,
    panel: Panel,
    sampler: Sampler,
    built: Built,
    agreement: Agreement | None,
    naive: int,
) -> StageResult:
    """Report, card and manifests; all of what a reader sees."""
    from llava.expansion.publishing import Facts, publish

    pictures = sum(1 for _ in job.pictures())
    numbers = publish(
        Facts(
            settings=_public(settings),
            pictures=pictures,
            blocked=len(job.corpus) - pictures,
            naive=naive,
            built=built,
            agreement=agreement,
            currency=teacher.currency,
        ),
        job,
        ledger,
        panel,
        sampler,
        pretrain_uri=outputs.pretrain_data,
        instruct_uri=outputs.instruct_data,
        report_uri=outputs.report,
    )
    about = {"rows": built.rows, "data_hash": job.corpus.sha256, "card": f"{outputs.instruct_data}.card.md"}
    return StageResult(
        numbers, {"instruct_data": about, "pretrain_data": {"rows": naive, "data_hash": job.corpus.sha256}}
    )


def _public(settings: Settings) -> dict[str, str | int | float | bool]:
    """Settings for manifests and reports: passwords that somebody wrote into a URL are cut out."""
    from llava.expansion.teachers.failures import redact

    return {name: redact(value) if isinstance(value, str) else value for name, value in settings.model_dump().items()}


STAGE = Stage("expand", "Expand captions and boxes into rows for both training stages", Settings, Inputs, Outputs, run)
