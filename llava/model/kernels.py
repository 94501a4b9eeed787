"""Fused kernels from Liger (Hsu et al. 2024, arXiv:2410.10989) for the language model: norms, rotation, gated feed-forward.

They compute what transformers' own modules compute, in one pass over memory where those take several, and keep less for the
backward pass. Rotation is replaced for the model's whole family in the process; norms and feed-forward in this model alone.
"""

from __future__ import annotations

import importlib.util
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
    import inspect

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
    with torch.device(next(language_model.parameters()).device):
        apply(model=language_model, **{name: value for name, value in off.items() if name in known_options})
