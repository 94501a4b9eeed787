"""Where DeepSpeed keeps a trainable parameter's fp32 master weights and Adam moments on this rank.

Each ZeRO variety lays them out in its own way. Here all of them become `Fragment`s: this rank's slice of a named
parameter, as flat views into the optimiser's memory. A checkpoint is then slices of named parameters, which any other
world size or ZeRO stage can read back, with no conversion and no communication.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Fragment:
    """Elements `start .. start + numel` of the flattened parameter `name`.

    Attributes:
        master: fp32 weights, a flat view; writing to it changes the optimiser's copy (`publish` then the model's).
        moments: Adam's `exp_avg` and `exp_avg_sq`, flat views.
        shared: every rank holds this whole parameter (no ZeRO), so that one of them has to be chosen to write it.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    numel: int
    master: torch.Tensor
    moments: dict[str, torch.Tensor]
    shared: bool


def fragments(engine: Any, names: dict[int, str]) -> list[Fragment]:
    """This rank's fragments, in the order of the parameters; Adam's state is created (zero) where it is not there yet.

    Args:
        engine: a DeepSpeed engine around torch's AdamW.
        names: `id(parameter)` -> the name to give it.
    """
    kind = type(engine.optimizer).__name__
    if kind == "DeepSpeedZeroOptimizer_Stage3":
        found = list(_stage3(engine.optimizer, names))
    elif kind in ("DeepSpeedZeroOptimizer", "BF16_Optimizer"):
        found = list(_flat(engine.optimizer, names))
    else:
        found = list(_plain(engine.optimizer, names))
    order = {name: index for index, name in enumerate(names.values())}
    return sorted(found, key=lambda fragment: order[fragment.name])


def set_adam_step(engine: Any, step: int) -> None:
    """Set the step count that Adam's bias correction uses, in every state there is."""
    for state in inner_optimizer(engine).state.values():
        if "step" in state:
            state["step"].fill_(float(step))


@torch.no_grad()
def publish(engine: Any) -> None:
    """Copy the masters into the model's own weights, as DeepSpeed does after a step; collective under ZeRO."""
    optimizer = engine.optimizer
    kind = type(optimizer).__name__
    if kind == "DeepSpeedZeroOptimizer_Stage3":
        for index in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(index)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].partition(optimizer.persistent_parameters)
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
    elif kind in ("DeepSpeedZeroOptimizer", "BF16_Optimizer"):
        optimizer.update_lp_params()


def inner_optimizer(engine: Any) -> torch.optim.Optimizer:
    """The torch optimiser inside DeepSpeed's wrapper, or itself where there is none."""
    optimizer = engine.optimizer
    inner: torch.optim.Optimizer = optimizer if isinstance(optimizer, torch.optim.Optimizer) else optimizer.optimizer
    return inner


def _adam_state(optimizer: torch.optim.Optimizer, owner: torch.Tensor, fused: bool) -> dict[str, torch.Tensor]:
    state = optimizer.state[owner]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=owner.device if fused else "cpu")
        for moment in MOMENTS:
            state[moment] = torch.zeros_like(owner)
    return state  # type: ignore[no-any-return]


def _is_fused(optimizer: torch.optim.Optimizer) -> bool:
    return bool(optimizer.defaults.get("fused"))


def _plain(optimizer: torch.optim.Optimizer, names: dict[int, str]) -> Iterator[Fragment]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = _adam_state(optimizer, parameter, _is_fused(optimizer))
            moments = {moment: state[moment].view(-1) for moment in MOMENTS}
            yield Fragment(
                names[id(parameter)],
                tuple(parameter.shape),
                0,
                parameter.numel(),
                parameter.data.view(-1),
                moments,
                shared=True,
            )


def _flat(optimizer: Any, names: dict[int, str]) -> Iterator[Fragment]:
    """ZeRO 1 and 2: each rank owns one stretch of every group's flattened parameters."""
    if type(optimizer).__name__ == "BF16_Optimizer":
        groups, flats = optimizer.bf16_groups, optimizer.fp32_groups_flat_partition
    else:
        groups, flats = optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups
    for parameters, flat in zip(groups, flats, strict=True):
        state = _adam_state(optimizer.optimizer, flat, _is_fused(optimizer.optimizer))
        for parameter in parameters:
            mapping = parameter._hp_mapping
            if mapping is None:
                continue
            there, here = mapping.hp_fragment_address, mapping.lp_fragment_address
            moments = {moment: state[moment].narrow(0, there.start, there.numel) for moment in MOMENTS}
            master = flat.data.narrow(0, there.start, there.numel)
            yield Fragment(
                names[id(parameter)], tuple(parameter.shape), here.start, here.numel, master, moments, shared=False
            )


def _stage3(optimizer: Any, names: dict[int, str]) -> Iterator[Fragment]:
    """ZeRO 3: every parameter is cut into equal parts, the last one padded."""
    for group_index, parameters in enumerate(optimizer.fp16_groups):
        flat = optimizer.fp32_partitioned_groups_flat[group_index]
        state = _adam_state(optimizer.optimizer, flat, _is_fused(optimizer.optimizer))
        for parameter in parameters:
            _, offset, part = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = int(part) * optimizer._get_param_partition_rank(parameter)
            numel = min(int(part), parameter.ds_numel - start)
            if numel <= 0:
                continue
            moments = {moment: state[moment].narrow(0, int(offset), numel) for moment in MOMENTS}
            master = flat.data.narrow(0, int(offset), numel)
            yield Fragment(names[id(parameter)], tuple(parameter.ds_shape), start, numel, master, moments, shared=False)
