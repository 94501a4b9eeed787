"""Liger's fused kernels (Hsu et al. 2024, arXiv:2410.10989) for the language model: norms, rotation, feed-forward.

They compute what transformers' own modules compute, in one pass over memory where those take several, and keep less
for the backward pass. Norms and feed-forward are exchanged in this model alone, the rotation for every model of its
family that runs on a GPU in this process.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch

from llava.errors import SettingsError


def use_liger(model: Any) -> None:
    """Let the language model of a LLaVA on a GPU use Liger's kernels.

    Raises:
        SettingsError: not installed, no GPU, or Liger knows no kernels for this family.
    """
    if importlib.util.find_spec("liger_kernel") is None:
        raise SettingsError(
            "kernels: found liger; liger-kernel is not installed: install the extra liger (pip install '.[liger]'), "
            "or set kernels to torch"
        )
    language_model = model.model.language_model
    if next(language_model.parameters()).device.type != "cuda":
        raise SettingsError("kernels: found liger, whose kernels need a GPU; expected torch")
    from liger_kernel.transformers.monkey_patch import (  # type: ignore[import-not-found,unused-ignore]
        MODEL_TYPE_TO_APPLY_LIGER_FN,
    )

    family = language_model.config.model_type
    apply = MODEL_TYPE_TO_APPLY_LIGER_FN.get(family)
    if apply is None:
        known = ", ".join(sorted(MODEL_TYPE_TO_APPLY_LIGER_FN))
        raise SettingsError(f"kernels: found liger; it has none for {family}; expected torch, or one of {known}")
    # The loss is ours (`llava.training.head`); its own would replace forwards that we do not call.
    off = {"cross_entropy": False, "fused_linear_cross_entropy": False}
    known_options = inspect.signature(apply).parameters
    module = sys.modules[type(language_model).__module__]
    before = dict(vars(module))
    apply(model=language_model, **{name: value for name, value in off.items() if name in known_options})
    # It also exchanges the family's classes, for every model built later: those are put back.
    for name, value in before.items():
        if vars(module)[name] is not value and isinstance(value, type):
            setattr(module, name, value)
    plain = before.get("apply_rotary_pos_emb")
    fused = vars(module).get("apply_rotary_pos_emb")
    if plain is not None and fused is not None and fused is not plain:
        module.apply_rotary_pos_emb = _where_it_runs(fused, plain)  # type: ignore[attr-defined]


def _where_it_runs(fused: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """The rotation is looked up in the family's module by every model: what is not on a GPU keeps the plain one."""

    def rotate(query: torch.Tensor, *rest: Any, **more: Any) -> Any:
        return (fused if query.is_cuda else plain)(query, *rest, **more)

    return rotate
