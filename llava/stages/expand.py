"""Data expansion: captions and boxes in, LLaVA rows out.

`pretrain_data` gets naive pairs (stage 1). `instruct_data` gets what `kinds` asks for: rows written by a teacher
(conversation, detail, reasoning, and whatever the expansion recipe adds), naive pairs with questions, regions.
Beside `instruct_data` stand the ledger of everything the teacher was asked (`.ledger/`), a line of provenance for
each row (`.provenance.jsonl`) and each dropped row with its reason (`.dropped.jsonl`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from llava.errors import DataError
from llava.stages.stage import Stage, StageInputs, StageOutputs, StageResult, StageSettings, output

if TYPE_CHECKING:
    from llava.expansion.pictures import Corpus
    from llava.telemetry import Telemetry


class Settings(StageSettings):
    """What to expand, by whom, and how much of it."""

    annotations_uri: str = Field(
        description="COCO annotations folder (captions_*.json, instances_*.json), or comma-separated files"
    )
    images_uri: str = Field(
        "", description="Folder or URI that image paths start from; only the preview reads pictures"
    )
    image_prefix: str = Field("", description="Put before each file name in the rows, e.g. train2017")
    split: str = Field("train", description="Which files of an annotations folder: captions_<split>*.json")
    kinds: str = Field(
        "conversation,detail,reasoning", description="Kinds of instruct rows, comma-separated; also naive, region"
    )
    expansion_recipe: str = Field("coco", description="Name, folder or URI of an expansion recipe")
    teacher: Literal["offline", "openai"] = Field(
        "offline", description="offline: deterministic, free; openai: any compatible endpoint"
    )
    naive_form: Literal["plain", "question"] = Field(
        "plain", description="pretrain_data: caption alone, or with a brief question"
    )
    image_position: Literal["before", "after", "random"] = Field(
        "before", description="Image before or after the first question"
    )
    captions_per_image: int = Field(1, ge=0, description="Naive pairs per picture in pretrain_data; 0: every caption")
    limit: int = Field(0, ge=0, description="Use only this many pictures; 0: all")
    seed: int = Field(0, description="Decides every random choice")
    gates_off: str = Field("", description="Quality gates to leave out, comma-separated")
    ledger_uri: str = Field("", description="Ledger folder shared between runs; empty: beside instruct_data")
    max_bad_rows: float = Field(
        0.01, ge=0, le=1, description="Largest share of broken annotation rows before the stage stops"
    )
    max_dropped: float = Field(0.5, ge=0, le=1, description="Largest share of dropped replies before the stage stops")


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
        DataError: annotations cannot be used, or more rows or replies are bad than the settings allow.
        SettingsError: an unknown kind, recipe or gate.
    """
    import asyncio
    from collections import Counter
    from functools import partial

    from llava.expansion.assembly import assemble
    from llava.expansion.dispatch import dispatch
    from llava.expansion.gates import Panel
    from llava.expansion.ledger import Ledger
    from llava.expansion.naive import naive_rows
    from llava.expansion.recipe import BUILT_IN_KINDS, load_expansion_recipe
    from llava.expansion.requests import all_requests
    from llava.expansion.rows import RowFile
    from llava.expansion.sources.opening import open_corpus
    from llava.expansion.teachers.offline import OfflineTeacher
    from llava.report import Report
    from llava.telemetry import Telemetry

    with Telemetry("expand", settings.teacher) as telemetry:
        recipe = load_expansion_recipe(settings.expansion_recipe)
        kinds = split_names(settings.kinds)
        taught = [recipe.kind(name) for name in kinds if name not in BUILT_IN_KINDS]
        corpus = open_corpus(
            settings.annotations_uri, split=settings.split, image_prefix=settings.image_prefix, limit=settings.limit
        )
        _check_problems(corpus, settings.max_bad_rows, telemetry)
        telemetry.note(f"{len(corpus):,} pictures, {len(corpus.categories)} categories")

        with RowFile(outputs.pretrain_data) as file:
            for row in naive_rows(
                corpus,
                questions=recipe.questions[recipe.brief_questions],
                with_question=settings.naive_form == "question",
                image_position=settings.image_position,
                captions_per_image=settings.captions_per_image,
                seed=settings.seed,
            ):
                file.add(row.as_json())
        telemetry.note(f"{file.count:,} naive pairs in {outputs.pretrain_data}")

        ledger = Ledger(settings.ledger_uri or f"{outputs.instruct_data}.ledger")
        teacher = OfflineTeacher()
        requests = partial(all_requests, taught, teacher.model, corpus, settings.seed)
        asyncio.run(dispatch(requests(), teacher, ledger, 1))
        panel = Panel(recipe, off=set(split_names(settings.gates_off)))
        kept: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        with (
            RowFile(outputs.instruct_data) as rows,
            RowFile(f"{outputs.instruct_data}.dropped.jsonl", lines=True) as drops,
        ):
            if "naive" in kinds:
                for row in naive_rows(
                    corpus,
                    questions=recipe.questions[recipe.brief_questions],
                    with_question=True,
                    image_position=settings.image_position,
                    captions_per_image=1,
                    seed=settings.seed + 1,
                ):
                    rows.add(row.as_json())
                    kept["naive"] += 1
            results = assemble(
                requests(), ledger, recipe, panel, image_position=settings.image_position, seed=settings.seed
            )
            for done, result in enumerate(results, 1):
                if result.row is not None:
                    rows.add(result.row.as_json())
                    kept[result.request.kind] += 1
                else:
                    dropped[result.request.kind] += 1
                    drops.add({"id": result.request.id, "image": result.request.picture.image, "reason": result.reason})
                telemetry.progress("replies", done, len(corpus) * len(taught), dropped=sum(dropped.values()))
        ledger.close()
        numbers = {f"rows_{kind}": float(number) for kind, number in kept.items()}
        numbers |= {f"dropped_{gate}": float(number) for gate, number in panel.hard.items()}
        report = Report("Data expansion", f"{len(corpus):,} pictures from {settings.annotations_uri}")
        report.figures({"pictures": len(corpus), "rows": rows.count, "dropped": sum(dropped.values())})
        report.table("Rows", ["kind", "kept", "dropped"], [[kind, kept[kind], dropped[kind]] for kind in kinds])
        report.write(outputs.report)
    return StageResult(metrics=numbers)


def split_names(text: str) -> list[str]:
    """Comma-separated names, without blanks and repetitions."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _check_problems(corpus: Corpus, max_bad_rows: float, telemetry: Telemetry) -> None:
    bad = len(corpus.problems)
    for problem in corpus.problems[:5]:
        telemetry.note(str(problem))
    if bad > max_bad_rows * max(corpus.rows_read, 1):
        raise DataError(
            f"annotations: {bad} of {corpus.rows_read} rows cannot be used, more than max_bad_rows ({max_bad_rows:g}); "
            f"the first: {corpus.problems[0]}"
        )


STAGE = Stage("expand", "Expand captions and boxes into rows for both training stages", Settings, Inputs, Outputs, run)
