"""What a node needs beside its GPUs: host memory, scratch space, `/dev/shm`. All in bytes.

By the code that uses them: weights go from mapped files to the GPU tensor by tensor; a checkpoint is a
snapshot of this node's share of fp32 masters and moments in one page-locked buffer, written from there; the read-ahead
holds rows as pixels; the final save makes one file of the model after the other on the first rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llava.config import TrainRecipe
from llava.planning.flops import Stage
from llava.planning.gpus import GIB
from llava.planning.memory import trained_parameters
from llava.planning.shape import Shape

# A rank without a model: Python, torch, CUDA's host side, NCCL.
PROCESS = int(4.5 * GIB)
# NCCL's buffers between the ranks of a node lie in /dev/shm: about 10 MB for each pair and channel.
SHM = GIB // 4
# Largest file of a written model (`llava.model.saving`): in memory while it is made, on disk until it is uploaded.
FILE = 4 * GIB


@dataclass(frozen=True)
class Host:
    """Bytes of one node.

    Attributes:
        loading: memory at its height while weights are read: a rank's largest tensor; mapped files are the kernel's.
        training: memory while steps run: processes, read-ahead, snapshot, offloaded states.
        scratch: base models from an object store or the hub, and one file of the written model. Checkpoints are
            streamed and need none.
        shm: `/dev/shm`.
    """

    loading: float
    training: float
    scratch: float
    shm: float

    @property
    def least_memory(self) -> float:
        """The larger of the two; a node with less cannot hold it."""
        return max(self.loading, self.training)

    @property
    def memory(self) -> float:
        """What to ask for: a tenth more, for what the kernel caches and what was forgotten."""
        return 1.1 * self.least_memory


def host(shape: Shape, stage: Stage, train: TrainRecipe, *, gpus: int, per_node: int) -> Host:
    """Needs of a node with `per_node` of `gpus` ranks."""
    size = 2 if train.precision == "bf16" else 4
    ranks = min(gpus, per_node)
    everything = shape.language_parameters + shape.tower_parameters + shape.projector_parameters
    weights = float(size * everything)
    trained = trained_parameters(shape, stage, train)
    share = ranks / gpus if train.effective_zero_stage >= 1 else 1.0
    snapshot = 12.0 * trained * share
    offloaded = 0.0
    if train.offload_optimizer:
        offloaded += 16.0 * trained * share
    if train.offload_parameters:
        offloaded += weights * share
    side = math.isqrt(shape.patches) * shape.patch
    pixels = 3 * 4 * side**2
    rows = math.ceil(train.global_batch_size / gpus)
    ahead = (3 * rows + 4 * train.loader_workers) * pixels * (5 if shape.anyres else 1) * ranks
    processes = PROCESS * (ranks + 1)
    final = min(weights, FILE) if stage == "finetune" else 0.0
    return Host(
        loading=processes + offloaded + ranks * size * shape.vocabulary * shape.width,
        training=processes + offloaded + snapshot + max(ahead, final),
        scratch=weights + final + GIB,
        shm=GIB + ranks * SHM,
    )
