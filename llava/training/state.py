"""What a run carries from checkpoint to checkpoint beside tensors, and what must not have changed in between.

Nothing else is needed to resume: the data order follows from seed and step, the learning rate from the step, and the
random numbers of a step (dropout) are seeded by step and rank.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from llava.config import TrainRecipe
from llava.errors import SettingsError
from llava.model.partitions import whole
from llava.training.job import Sample, StepRecord, Validation

# How rows are laid out, how fast, how often we look: free to change when a run resumes. Everything else is mathematics.
LAYOUT_FIELDS = frozenset(
    {
        "micro_batch_size",
        "packing",
        "pack_tokens",
        "pack_images",
        "zero_stage",
        "offload_optimizer",
        "offload_parameters",
        "activation_checkpoint_every_n_layers",
        "compile",
        "kernels",
        "nodes",
        "loader_workers",
        "save_every_steps",
        "keep_checkpoints",
        "log_every_steps",
        "validate_every_steps",
        "sample_generations",
        "max_bad_rows",
    }
)


class Identity(BaseModel):
    """What a checkpoint was made from. A run resumes from it only when all of this is the same."""

    model_config = ConfigDict(extra="forbid")

    stage: str
    recipe: dict[str, Any]
    data: str = Field(description="fingerprint of the rows and their order")
    frozen: str = Field(description="fingerprint of the weights as they were before training")
    steps: int = Field(description="length of the whole run; the learning-rate schedule depends on it")


class RunState(BaseModel):
    """The part of a checkpoint that is not tensors."""

    model_config = ConfigDict(extra="forbid")

    identity: Identity
    history: list[StepRecord] = Field(default_factory=list)
    validations: list[Validation] = Field(default_factory=list)
    samples: list[Sample] = Field(default_factory=list)
    seconds: float = 0.0

    def cut_to(self, step: int) -> None:
        """Forget what came after `step` optimiser steps."""
        self.history = [record for record in self.history if record.step <= step]


def mathematics(recipe: TrainRecipe) -> dict[str, Any]:
    """The recipe's fields that decide the numbers of a run."""
    return {name: value for name, value in recipe.model_dump(mode="json").items() if name not in LAYOUT_FIELDS}


def check_same(saved: Identity, present: Identity, place: str) -> None:
    """Refuse to resume with other settings than the run began with.

    Raises:
        SettingsError: naming every difference, both sides of it, and the way out.
    """
    differences = []
    for name in ("stage", "steps", "data", "frozen"):
        before, now = getattr(saved, name), getattr(present, name)
        if before != now:
            differences.append(f"{_READABLE[name]} was {_short(before)}, now {_short(now)}")
    # A field younger than the checkpoint stood at what is its default now.
    defaults = mathematics(TrainRecipe(learning_rate=1.0))
    for name in sorted(saved.recipe.keys() | present.recipe.keys()):
        before, now = (side.recipe.get(name, defaults.get(name)) for side in (saved, present))
        if before != now:
            differences.append(f"{name} was {before!r}, now {now!r}")
    if differences:
        raise SettingsError(
            f"{place}: belongs to another run: {'; '.join(differences)}. "
            "Put these back to resume, or choose another outputs folder (or delete the checkpoints) to start afresh"
        )


def weights_fingerprint(model: torch.nn.Module) -> str:
    """SHA-256 over every parameter's name, shape and up to 256 evenly spaced values: cheap, yet tells weights apart.

    Collective where the model is cut over ranks; the same as of the whole model.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        with whole(parameter):
            digest.update(f"{name}:{tuple(parameter.shape)}".encode())
            flat = parameter.detach().reshape(-1)
            picked = flat[:: max(1, flat.numel() // 256)][:256].cpu().clone()
        if picked.dtype != torch.uint8:  # 4-bit weights are stored as bytes
            picked = picked.float()
        digest.update(picked.numpy().tobytes())
    return digest.hexdigest()


_READABLE = {
    "stage": "the stage",
    "steps": "the number of steps",
    "data": "the data (fingerprint)",
    "frozen": "the starting weights (fingerprint)",
}


def _short(value: object) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 16 else repr(value)
