"""GPU memory of a stage by part: weights, gradients, optimiser, activations, logits, what has to stay free.

Activations are the tensors that autograd keeps, counted from the modules' code and checked in the tests against what
autograd really keeps (`torch.autograd.graph.saved_tensors_hooks`). States follow DeepSpeed (Rajbhandari et al. 2020,
ZeRO): with bf16, fp32 masters and two moments, 12 B a trained parameter, partitioned from ZeRO-1 on; fp32 gradient
accumulators, whole under ZeRO-1 and partitioned from ZeRO-2 on; weights partitioned under ZeRO-3. All in bytes.

Measured on one H200 (`benchmarks/results/gpu_train.json`): 112.5 GiB where 112.0 are planned (stage 1 of the 7B, 24,523
tokens), 133.9 where 134.5 are (LoRA, 15,832 tokens); compiled layers took 84.4 in the first case, which is what makes
`layer_activations` count them apart.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from llava.config import LoraRecipe, TrainRecipe
from llava.planning.flops import Stage
from llava.planning.shape import Shape

Precision = Literal["fp32", "bf16"]

# DeepSpeed's defaults, in elements: one bucket of gradients under reduction, weights gathered at a time by ZeRO-3.
BUCKET = 500_000_000
LIVE_PARAMETERS = 1_000_000_000
# CUDA context, NCCL buffers, cuBLAS workspaces; then the share that the caching allocator loses to fragmentation.
# Positions whose logits exist at a time (`llava.training.head.CHUNK`).
LOGITS_CHUNK = 1024
CONTEXT = int(1.5 * 2**30)
FRAGMENTATION = 0.05


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the peak of a step."""

    weights: float
    gradients: float
    optimizer: float
    buffers: float
    activations: float
    logits: float
    reserve: float

    @property
    def states(self) -> float:
        """What is there before the first token."""
        return self.weights + self.gradients + self.optimizer + self.buffers

    @property
    def total(self) -> float:
        """All of it."""
        return sum(float(getattr(self, field.name)) for field in fields(self))


def trained_parameters(shape: Shape, stage: Stage, recipe: TrainRecipe) -> int:
    """Parameters that the stage moves."""
    trained = shape.projector_trained
    if stage == "finetune":
        trained += shape.lora_parameters(recipe.lora) if recipe.lora else shape.language_parameters
        if recipe.vision_tower_learning_rate is not None:
            trained += shape.tower_parameters
    return trained


def layer_activations(
    shape: Shape, precision: Precision, *, trained: bool, lora: LoraRecipe | None = None, compiled: bool = False
) -> float:
    """Bytes that autograd keeps of one token in one language layer.

    Each norm keeps its input in fp32 (and, where its scale is trained, its output); each trained matrix its input;
    attention its q, k, v, output and one fp32 number a head; the gated feed-forward its two halves and their
    activation (and the product, where the last matrix is trained). A compiled layer keeps each norm's input in the
    model's own precision and makes the activation of the gate again.
    """
    size = 2 if precision == "bf16" else 4
    d, q, kv, f = shape.width, shape.query_width, shape.kv_width, shape.hidden
    norms = 2 * (d * size + 4) if compiled else 2 * (d + 1) * 4
    attention = size * (2 * q + 2 * kv) + 4 * shape.heads
    gate = size * (2 if compiled else 3) * f
    total: float = float(norms + attention + gate)
    if trained:
        total += size * (2 * d + 2 * d + f)
    if lora is not None:
        for name in lora.target_modules:
            inner, _ = shape.target(name)
            # With dropout each adapter keeps a mask of one byte and its own dropped input; A's output for B.
            total += inner * (1 + size) + size * lora.r if lora.dropout else size * lora.r
        if not lora.dropout:
            total += size * (2 * d + f)
    return total


def activations(shape: Shape, stage: Stage, recipe: TrainRecipe, *, tokens: int, images: int) -> float:
    """Bytes that autograd keeps of a pack (or padded batch) of `tokens` tokens with `images` square images or tiles."""
    size = 2 if recipe.precision == "bf16" else 4
    trained = stage == "finetune" and recipe.lora is None
    layer = _layer(shape, stage, recipe)
    redone = recomputed_layers(shape, recipe)
    # A recomputed layer keeps its input only.
    language = (shape.layers - redone) * layer + redone * size * shape.width
    final_norm = 4 * shape.width + size * shape.width * trained
    per_image: float = size * shape.patches * (shape.tower_width + 2 * shape.width * max(0, shape.projector_depth - 1))
    if recipe.vision_tower_learning_rate is not None and stage == "finetune":
        per_image += _tower_layer(shape, size) * shape.tower_used
    return tokens * (language + final_norm) + images * per_image


def working_set(shape: Shape, stage: Stage, recipe: TrainRecipe, *, tokens: int, images: int) -> float:
    """Bytes that come and go at the peak: merged embeddings, and the larger of one recomputed or one tower layer."""
    size = 2 if recipe.precision == "bf16" else 4
    redone = tokens * _layer(shape, stage, recipe) if recomputed_layers(shape, recipe) else 0.0
    tower = images * _tower_layer(shape, size) / 2
    return tokens * 2 * size * shape.width + max(redone, tower)


def recomputed_layers(shape: Shape, recipe: TrainRecipe) -> int:
    """Language layers whose activations are recomputed (`checkpointing.checkpoint_every`)."""
    every = recipe.activation_checkpoint_every_n_layers
    return len(range(0, shape.layers, every)) if every else 0


def _layer(shape: Shape, stage: Stage, recipe: TrainRecipe) -> float:
    lora = recipe.lora if stage == "finetune" else None
    trained = stage == "finetune" and lora is None
    return layer_activations(shape, recipe.precision, trained=trained, lora=lora, compiled=recipe.compile)


def _tower_layer(shape: Shape, size: int) -> int:
    """All intermediate tensors of one image in one tower layer."""
    return size * (shape.patches + 1) * (8 * shape.tower_width + 4 * shape.tower_hidden)


def logits(shape: Shape, stage: Stage, recipe: TrainRecipe, positions: int) -> float:
    """Bytes of logits and loss at `positions`.

    For one chunk: the logits, their fp32 copy, log-softmax and the gradient; for all: the gradient of the hidden
    states; and where the head is trained, that of its weight, summed in fp32 and rounded.
    """
    size = 2 if recipe.precision == "bf16" else 4
    chunk = min(positions, LOGITS_CHUNK) * shape.vocabulary * (14 if size == 2 else 12)
    head = shape.vocabulary * shape.width * (4 + size) if stage == "finetune" and recipe.lora is None else 0
    return float(chunk + positions * shape.width * size + head)


def memory(
    shape: Shape,
    stage: Stage,
    recipe: TrainRecipe,
    *,
    gpus: int,
    tokens: int,
    images: int,
    positions: int,
    gpu_bytes: int,
) -> Memory:
    """Peak memory of one GPU.

    Args:
        shape: the model.
        stage: pretrain or finetune.
        recipe: the stage's section: precision, ZeRO stage, offloading, checkpointing, adapters.
        gpus: ranks that share the states.
        tokens, images, positions: of the largest micro-batch.
        gpu_bytes: the device's memory, for the share that fragmentation takes.
    """
    bf16 = recipe.precision == "bf16"
    zero = recipe.effective_zero_stage
    size = 2 if bf16 else 4
    trained = trained_parameters(shape, stage, recipe)
    everything = shape.language_parameters + shape.tower_parameters + shape.projector_parameters
    weights = float(size * everything)
    if stage == "finetune" and recipe.lora is not None:
        weights += size * shape.lora_parameters(recipe.lora)
        if recipe.lora.quantize_4bit:
            # NF4 with double quantisation: 4.127 bits a parameter (Dettmers et al. 2023); norms, embeddings, head stay.
            matrices = shape.layers * shape.layer_matrix
            weights -= matrices * (size - 4.127 / 8)
    optimizer = trained * (12.0 if bf16 else 8.0)
    gradients = trained * 4.0
    buffers: float = 0.0
    if zero >= 1:
        optimizer /= gpus
    if zero >= 2:
        gradients /= gpus
        buffers += min(BUCKET, trained) * size
    if zero == 3:
        buffers += min(LIVE_PARAMETERS, everything) * size
        weights = 0.0 if recipe.offload_parameters else weights / gpus
    if recipe.offload_optimizer:
        optimizer = 0.0
        gradients = 0.0 if zero >= 2 else gradients
    kept = activations(shape, stage, recipe, tokens=tokens, images=images)
    kept += working_set(shape, stage, recipe, tokens=tokens, images=images)
    loss = logits(shape, stage, recipe, positions)
    if bf16 and zero == 1 and not recipe.offload_optimizer:
        # The update rounds this rank's masters into a copy; activations are gone by then and leave it their room.
        buffers += max(0.0, 2.0 * trained / gpus - kept - loss)
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        buffers=buffers,
        activations=kept,
        logits=loss,
        reserve=CONTEXT + FRAGMENTATION * gpu_bytes,
    )


def largest_pack(
    shape: Shape,
    stage: Stage,
    recipe: TrainRecipe,
    *,
    gpus: int,
    gpu_bytes: int,
    tokens_per_image: float,
    supervised_share: float,
    step: int = 256,
) -> int:
    """The most tokens of a pack that fits, a multiple of `step`; 0 where not even one does.

    Args:
        tokens_per_image: tokens of a pack for each image in it (the mean row).
        supervised_share: share of tokens with logits.
    """

    def fits(tokens: int) -> bool:
        images, positions = int(tokens / tokens_per_image) + 1, int(tokens * supervised_share)
        need = memory(
            shape, stage, recipe, gpus=gpus, tokens=tokens, images=images, positions=positions, gpu_bytes=gpu_bytes
        )
        return need.total <= gpu_bytes

    low, high = 0, 2**22 // step
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * step) else (low, middle - 1)
    return low * step
