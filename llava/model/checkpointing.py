"""Activation checkpointing of some layers: memory for time (Chen et al. 2016), as little of it as is needed."""

from __future__ import annotations

import functools
from typing import Any

from torch.utils.checkpoint import checkpoint


def checkpoint_every(model: Any, n: int) -> int:
    """Recompute every n-th language layer, the first one included, in the backward pass; the other layers keep all.

    Works in training mode only, as transformers has it; call `model.train()`.

    Args:
        model: a LLaVA as `build_model` makes it.
        n: 0: no layer; 1: every layer; n: layers 0, n, 2n, ...

    Returns:
        How many layers recompute.
    """
    layers = model.model.language_model.layers
    chosen = range(0, len(layers), n) if n else range(0)
    for index, layer in enumerate(layers):
        layer.gradient_checkpointing = index in chosen
        # Non-reentrant: works without an input that needs a gradient, and keeps hooks and adapters right.
        layer._gradient_checkpointing_func = functools.partial(checkpoint, use_reentrant=False)
    return len(chosen)
