"""Seconds that ranks spend exchanging gradients and weights, and how much of it the computation cannot hide.

Volumes by ZeRO stage (Rajbhandari et al. 2020, section 7), rings of n ranks: a rank sends and receives (n - 1)/n of a
tensor for each gather or reduce-scatter, and twice that for an all-reduce. As this engine runs DeepSpeed: under ZeRO 1
fp32 sums are reduced once a step, when the backward pass is over; under 2 and 3 bf16 gradients are reduced at every
micro-step beside the backward pass; under 3 all weights are gathered before forward and before backward.
"""

from __future__ import annotations

from dataclasses import dataclass

EFFICIENCY = 0.7  # share of a link's rate that large collectives reach
HOST_LINK = 20e9  # bytes a second between a GPU and its host: PCIe 4 x16, pinned
HOST_MEMORY = 100e9  # bytes a second that a node's processes read and write together in a large update
ADAM_BYTES = 28  # a parameter: master and both moments read and written, the gradient read


@dataclass(frozen=True)
class Links:
    """How the GPUs are joined: bytes a second in one direction.

    Attributes:
        per_node: GPUs in a node.
        inside: of one GPU to the others of its node.
        outside: of one node to the others, shared by its GPUs.
    """

    per_node: int
    inside: float
    outside: float

    def rate(self, gpus: int) -> float:
        """Of one GPU in a ring through all of them: the slowest link decides."""
        if gpus <= self.per_node:
            return self.inside * EFFICIENCY
        return min(self.inside, self.outside / self.per_node) * EFFICIENCY


@dataclass(frozen=True)
class Traffic:
    """Bytes a rank sends in an optimiser step.

    Attributes:
        beside: while it computes, which hides it as long as that takes longer.
        after: when computing is over.
    """

    beside: float
    after: float

    def exposed_seconds(self, computing: float, rate: float) -> float:
        """What a step of `computing` seconds is longer for."""
        return max(0.0, self.beside / rate - computing) + self.after / rate


def traffic(*, zero: int, gpus: int, trained: float, everything: float, micro_steps: int, bf16: bool) -> Traffic:
    """Traffic of one optimiser step.

    Args:
        zero: ZeRO stage that runs.
        gpus: ranks.
        trained, everything: parameters that move, and all.
        micro_steps: micro-batches of a rank.
        bf16: two bytes a weight instead of four.
    """
    if gpus == 1:
        return Traffic(0.0, 0.0)
    share, size = (gpus - 1) / gpus, 2 if bf16 else 4
    if zero <= 1:
        gathered = size * trained * share if zero == 1 else 0.0
        return Traffic(0.0, 2 * 4 * trained * share + gathered)
    reduced = size * trained * share * micro_steps
    if zero == 2:
        return Traffic(reduced, size * trained * share)
    return Traffic(reduced + 2 * size * everything * share * micro_steps, 0.0)


def offload_seconds(
    *, optimizer: bool, parameters: bool, gpus: int, per_node: int, trained: float, everything: float, micro_steps: int
) -> float:
    """Seconds a step that states on the host cost: their way through PCIe, and AdamW on the host's memory.

    Args:
        optimizer, parameters: what is offloaded.
        gpus, per_node: ranks, and those of a node, which share its memory.
        trained, everything: parameters that move, and all; bf16 weights and fp32 gradients are assumed.
        micro_steps: micro-batches of a rank.
    """
    seconds = 0.0
    if optimizer:
        own = trained / gpus
        seconds += (4 + 2) * own / HOST_LINK + ADAM_BYTES * own * min(gpus, per_node) / HOST_MEMORY
    if parameters:
        seconds += 2 * micro_steps * 2 * everything / gpus / HOST_LINK
    return seconds
