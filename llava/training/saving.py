"""Write what a stage hands over: the projector, or the whole model in hub layout."""

from __future__ import annotations

import math
from typing import Any

from llava.training.engine import Engine
from llava.training.job import Job


def save(job: Job, engine: Engine, model: Any, processor: Any, rank: int) -> None:
    """Save to the job's output; collective under ZeRO-3, written by rank 0. The stage adds the manifest.

    No rank ever holds the whole model for it: tensors are gathered one by one.
    """
    from llava.model.saving import projector_tensors, save_model, save_projector

    if job.stage == "finetune":
        gather = engine.whole if engine.zero_stage == 3 else None
        if rank == 0 or gather is not None:
            save_model(model, processor, job.output_uri, gather=gather, write=rank == 0)
        return
    with engine.whole(list(projector_tensors(model).values())):
        if rank == 0:
            save_projector(model, job.output_uri)


def rehearse(job: Job, engine: Engine, model: Any, rank: int) -> None:
    """What `save` asks of the ranks and of memory, and nothing written: every tensor gathered, the largest merged and
    brought to the host; collective.
    """
    from llava.model.lora import merged_tensors
    from llava.model.saving import projector_tensors

    if job.stage == "pretrain":
        with engine.whole(list(projector_tensors(model).values())):
            return
    pieces = merged_tensors(model)
    largest = max(pieces, key=lambda piece: math.prod(piece.shape)).name
    for piece in pieces:
        with engine.whole(piece.sources):
            if rank == 0 and piece.name == largest:
                piece.make().cpu()
