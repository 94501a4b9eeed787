"""Stage 2, instruction tuning: the projector W and the language model φ move, the vision tower does not.

Liu et al. 2023 (arXiv:2304.08485), section 4.2, stage 2. The result is a hub directory that stock transformers loads.
"""

from __future__ import annotations

from pydantic import Field

from llava.stages.stage import Stage, StageInputs, StageOutputs, StageResult, output
from llava.stages.train_stage import TrainSettings, run_training


class Settings(TrainSettings):
    """Settings of finetune."""


class Inputs(StageInputs):
    """What finetune reads."""

    data: str = Field(description="Instruction rows: LLaVA JSON, such as llava_v1_5_mix665k.json")
    projector: str = Field(description="The projector that pretrain wrote")


class Outputs(StageOutputs):
    """What finetune writes."""

    model: str = output("The trained model as a hub directory, with its processor and a manifest", "folder", "Model")
    checkpoints: str = output("Checkpoints to resume from after an interruption", "folder", "Artifact")
    report: str = output("Curves, sample answers, rows left out", "html", "HTML")
    metrics: str = output("Final loss, speed, seconds", "metrics", "Metrics")


def run(settings: Settings, inputs: Inputs, outputs: Outputs) -> StageResult:
    """Train projector and language model.

    Raises:
        UserError: settings, recipe, data or a place are wrong, or the run was stopped.
    """
    return run_training(
        "finetune",
        settings,
        data_uri=inputs.data,
        projector_uri=inputs.projector,
        output_uri=outputs.model,
        checkpoints_uri=outputs.checkpoints,
        report_uri=outputs.report,
    )


STAGE = Stage(
    name="finetune",
    summary="Stage 2: tune projector W and language model φ on instructions; the vision tower stays",
    settings=Settings,
    inputs=Inputs,
    outputs=Outputs,
    run=run,
)
