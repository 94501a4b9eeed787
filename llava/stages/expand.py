"""Data expansion: captions and boxes in, LLaVA rows out.

`pretrain_data` gets naive pairs (stage 1). `instruct_data` gets what `kinds` asks for: rows written by a teacher
(conversation, detail, reasoning, and whatever the expansion recipe adds), naive pairs with questions, regions; mixed
with external data where a mixture is named. Beside `instruct_data` stand the ledger of everything the teacher was
asked (`.ledger/`), a line of provenance for each row (`.provenance.jsonl`), each dropped reply with its reason
(`.dropped.jsonl`) and a dataset card (`.card.md`).
"""

from __future__ import annotations

from llava.stages.expand_settings import Settings, checks_of, job_of, row_options, teacher_settings
from llava.stages.stage import Stage, StageInputs, StageOutputs, StageResult, output


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
    from llava.expansion.run import Expansion, Places, check, expand
    from llava.manifest import redacted_settings
    from llava.telemetry import Telemetry

    teacher, checks = teacher_settings(settings), checks_of(settings)
    check(teacher, checks)
    places = Places(
        pretrain=outputs.pretrain_data,
        instruct=outputs.instruct_data,
        report=outputs.report,
        ledger=settings.ledger_uri or f"{outputs.instruct_data}.ledger",
    )
    shown = redacted_settings(settings.model_dump())
    with Telemetry("expand", settings.teacher) as telemetry:
        job = job_of(settings, teacher.model_name)
        made = expand(Expansion(job, teacher, row_options(settings), checks, places, shown), telemetry)
    card = f"{outputs.instruct_data}.card.md"
    return StageResult(
        made.numbers,
        {
            "instruct_data": {"rows": made.rows, "data_hash": made.data_hash, "card": card},
            "pretrain_data": {"rows": made.naive, "data_hash": made.data_hash},
        },
    )


STAGE = Stage("expand", "Expand captions and boxes into rows for both training stages", Settings, Inputs, Outputs, run)
