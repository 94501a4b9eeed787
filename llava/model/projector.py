"""Projectors: from the tower's width to the language model's, in the stock class wherever it can hold them.

| recipe          | stock `LlavaMultiModalProjector`                                                        |
|-----------------|-----------------------------------------------------------------------------------------|
| `mlp2x_gelu`    | as it is: linear_1, GELU, linear_2 (LLaVA-1.5, Liu et al. 2023)                          |
| `linear`        | linear_1 is the matrix W of LLaVA v1; activation `linear`, linear_2 a frozen identity    |
| `identity`      | both layers frozen identities; the two widths must be equal                              |
| `mlpNx_gelu`    | N > 2 does not fit: `deep_projector.DeepProjector`, saved with the code that loads it    |
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from llava.model.deep_projector import DeepProjector
from llava.model.projector_kinds import depth_of


@torch.no_grad()
def initialise(module: nn.Module, projector: str, seed: int) -> None:
    """Fill a projector: `torch.nn.Linear`'s own initialisation from `seed`, exact identities where the kind asks."""
    linears = [child for child in module.modules() if isinstance(child, nn.Linear)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for linear in linears:
            linear.reset_parameters()
    for linear in _identities(module, projector):
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)


def trained_parameters(module: nn.Module, projector: str) -> list[nn.Parameter]:
    """The projector's parameters that training may move: all but the identities that stand for missing layers."""
    fixed = {id(parameter) for linear in _identities(module, projector) for parameter in linear.parameters()}
    return [parameter for parameter in module.parameters() if id(parameter) not in fixed]


def kind_of(module: nn.Module) -> str:
    """The recipe's name for a projector as it stands in a model, as `remember_kind` read it."""
    kind = getattr(module, "llava_kind", None) or _kind_from_structure(module)
    assert isinstance(kind, str)
    return kind


def remember_kind(module: nn.Module, projector: str | None = None) -> None:
    """Note the kind, given or read from whole weights: on the meta device and under ZeRO-3 it can no longer be read."""
    if projector is None:
        kind = _kind_from_structure(module)
    else:
        kind = "linear" if depth_of(projector) == 1 else projector
    module.llava_kind = kind  # type: ignore[assignment]


def _kind_from_structure(module: Any) -> str:
    if isinstance(module, DeepProjector):
        return f"mlp{len(module.layers)}x_gelu"
    if type(module.act).__name__ != "LinearActivation":
        return "mlp2x_gelu"
    return "identity" if _is_identity(module.linear_1) else "linear"


def _identities(module: nn.Module, projector: str) -> list[Any]:
    names = {0: ["linear_1", "linear_2"], 1: ["linear_2"]}.get(depth_of(projector), [])
    return [module.get_submodule(name) for name in names]


def _is_identity(linear: nn.Module) -> bool:
    weight = linear.weight
    assert isinstance(weight, torch.Tensor)
    return weight.shape[0] == weight.shape[1] and bool(
        torch.equal(weight, torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device))
    )
