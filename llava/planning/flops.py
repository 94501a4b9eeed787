"""FLOPs of a training step, by the parts that a stage runs forward and backward.

Model FLOPs (the numerator of MFU, Chowdhery et al. 2022, PaLM, appendix B): multiply and add count two; matrix
products only; causal attention counts the half it needs; nothing for recomputation. `recomputed` is what activation
checkpointing adds to the hardware's work. A part costs its forward pass once; its backward pass once more for the
gradient of its input, where something trained stands before it, and once more for that of its weights, where trained.

Notation: T tokens of one document, n positions with logits, L layers, d width, f feed-forward width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from llava.config import LoraRecipe
from llava.model import towers
from llava.planning.shape import Shape

Stage = Literal["pretrain", "finetune"]


@dataclass(frozen=True)
class Flops:
    """FLOPs by part. `total` is the model's; `hardware` adds what is computed twice."""

    tower: float
    projector: float
    language_linear: float
    language_attention: float
    head: float
    recomputed: float

    @property
    def total(self) -> float:
        """Model FLOPs."""
        return self.tower + self.projector + self.language_linear + self.language_attention + self.head

    @property
    def hardware(self) -> float:
        """Model FLOPs and those spent on recomputing activations."""
        return self.total + self.recomputed

    def scaled(self, factor: float) -> Flops:
        """All parts times `factor`."""
        return Flops(*(getattr(self, field.name) * factor for field in fields(self)))


def tower_forward(shape: Shape) -> float:
    """One square image (or tile) through the used layers of the tower; its attention is not causal."""
    tokens, e = shape.patches + towers.FAMILIES[shape.tower].class_token, shape.tower_width
    linear = 2 * (4 * e * e + 2 * e * shape.tower_hidden) * tokens
    attention = 4 * tokens**2 * e
    return shape.tower_used * (linear + attention) + _patch_embedding(shape)


def _patch_embedding(shape: Shape) -> float:
    return 2.0 * shape.patches * 3 * shape.patch**2 * shape.tower_width


def projector_layers(shape: Shape) -> list[float]:
    """Forward FLOPs of one square image through each linear layer of the projector, fixed identities included."""
    tokens, d = shape.visual_tokens, shape.width
    depth = max(2, shape.projector_depth)
    return [2.0 * shape.tower_width * d * tokens] + [2.0 * d * d * tokens] * (depth - 1)


def language_linear(shape: Shape, tokens: float) -> float:
    """Forward FLOPs of the layers' matrices: 2 L (4 d^2 + 3 d f) T, fewer with grouped key/value heads."""
    return 2.0 * shape.layers * shape.layer_matrix * tokens


def language_attention(shape: Shape, documents: Sequence[float]) -> float:
    """Forward FLOPs of causal attention: 2 T^2 d L for each document; packing adds none."""
    return 2.0 * shape.layers * shape.query_width * sum(length * length for length in documents)


def head(shape: Shape, positions: float) -> float:
    """Forward FLOPs of the head at the positions that need logits: 2 d V n."""
    return 2.0 * shape.width * shape.vocabulary * positions


def step_flops(
    shape: Shape,
    stage: Stage,
    *,
    documents: Sequence[float],
    positions: float,
    images: float,
    lora: LoraRecipe | None = None,
    train_tower: bool = False,
    checkpoint_every: int = 0,
) -> Flops:
    """Forward and backward FLOPs of the rows of a step.

    Args:
        shape: the model.
        stage: pretrain: projector only; finetune: projector and language model.
        documents: tokens of each row, visual tokens included.
        positions: supervised positions, where logits are computed.
        images: square images, or tiles (averages, such as 0.94 a row, are as good).
        lora: adapters in stage 2, whose base matrices get no weight gradient.
        train_tower: the tower is trained too (finetune).
        checkpoint_every: every n-th language layer is recomputed in the backward pass; 0: none.
    """
    tokens = sum(documents)
    linear, attention, logits = (
        language_linear(shape, tokens),
        language_attention(shape, documents),
        head(shape, positions),
    )
    full = stage == "finetune" and lora is None
    matrices = linear * (3 if full else 2)
    # Recomputation stops at the last tensor the backward pass needs: the last product of a layer is not made again.
    spared = 2.0 * shape.layers * shape.hidden * shape.width * tokens
    again = linear + attention - spared
    if stage == "finetune" and lora is not None:
        adapters = 2.0 * shape.layers * shape.lora_matrix(lora) * tokens
        matrices += 3 * adapters
        again += adapters
        if "down_proj" in lora.target_modules:
            again += spared - 2.0 * shape.layers * lora.r * shape.width * tokens
    share = len(range(0, shape.layers, checkpoint_every)) / shape.layers if checkpoint_every else 0.0
    tower_trained = train_tower and stage == "finetune"
    return Flops(
        tower=images * (3 * tower_forward(shape) - _patch_embedding(shape) if tower_trained else tower_forward(shape)),
        projector=_projector(shape, tower_trained) * images,
        language_linear=matrices,
        language_attention=3 * attention,
        head=logits * (3 if full else 2),
        recomputed=again * share,
    )


def _projector(shape: Shape, tower_trained: bool) -> float:
    """One image forward and backward; a layer's input needs a gradient where something before it is trained."""
    total, before = 0.0, tower_trained
    for index, forward in enumerate(projector_layers(shape)):
        trained = index < shape.projector_depth
        total += forward * (1 + before + trained)
        before = before or trained
    return total
