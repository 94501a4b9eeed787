"""Stage 1, feature alignment: only the projector W moves, until images speak the language model's words.

Liu et al. 2023 (arXiv:2304.08485), section 4.2, stage 1. The projector goes to finetune as a small safetensors file.
"""

from __future__ import annotations

from pydantic import Field

from llava.stages.stage import Stage, StageInputs, StageOutputs, StageResult, output
from llava.stages.train_stage import TrainSettings, run_training


class Settings(TrainSettings):
    """Settings of pretrain."""


class Inputs(StageInputs):
    """What pretrain reads."""

    data: str = Field(description="Image-caption rows: LLaVA JSON, such as blip_laion_cc_sbu_558k.json")


class Outputs(StageOutputs):
    """What pretrain writes."""

    projector: str = output("The trained projector: safetensors, its config and a manifest", "folder", "Model")
    checkpoints: str = output("Checkpoints to resume from after an interruption", "folder", "Artifact")
    report: str = output("Curves, sample answers, rows left out", "html", "HTML")
    metrics: str = output("Final loss, speed, seconds", "metrics", "Metrics")


def run(settings: Settings, inputs: Inputs, outputs: Outputs) -> StageResult:
    """Train the projector.

    Raises:
        UserError: settings, recipe, data or a place are wrong, or the run was stopped.
    """
    return run_training(
        "pretrain",
        settings,
        data_uri=inputs.data,
        projector_uri="",
        output_uri=outputs.projector,
        checkpoints_uri=outputs.checkpoints,
        report_uri=outputs.report,
    )


STAGE = Stage(
    name="pretrain",
    summary="Stage 1: align image features with word embeddings; only the projector W moves",
    settings=Settings,
    inputs=Inputs,
    outputs=Outputs,
    run=run,
)
