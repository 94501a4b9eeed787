"""Write what a stage hands over: the projector, or the whole model in hub layout."""

from __future__ import annotations

from typing import Any

from llava.training.engine import Engine
from llava.training.job import Job


def save(job: Job, engine: Engine, model: Any, processor: Any, rank: int) -> None:
    """Save to the job's output; collective under ZeRO-3, written by rank 0. The stage adds the manifest."""
    from llava.model.saving import save_model, save_projector

    with engine.whole_parameters():
        if rank != 0:
            return
        if job.stage == "pretrain":
            save_projector(model, job.output_uri)
        else:
            save_model(model, processor, job.output_uri)


def rehearse(job: Job, engine: Engine, model: Any, rank: int) -> None:
    """What `save` needs of the devices' memory, and nothing written: whole parameters, adapters merged; collective."""
    from llava.model import lora

    with engine.whole_parameters():
        if rank == 0 and job.stage == "finetune":
            lora.merged_state_dict(model)
