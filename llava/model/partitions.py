"""Parameters of which each rank holds a part (DeepSpeed's ZeRO-3): their shape, and their values for a moment."""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def whole_shape(parameter: torch.Tensor) -> tuple[int, ...]:
    """The shape that it has when it is whole."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def whole(parameter: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    """A context in which the parameter is whole on every rank, for reading; collective where it is cut."""
    if not hasattr(parameter, "ds_id"):
        return contextlib.nullcontext()
    import deepspeed

    gathered: contextlib.AbstractContextManager[Any] = deepspeed.zero.GatheredParameters([parameter])
    return gathered
