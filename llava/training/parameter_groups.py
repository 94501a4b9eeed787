"""Optimiser groups: which parameters move, at which peak learning rate, with or without decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llava.config import TrainRecipe

if TYPE_CHECKING:
    from torch import nn


def parameter_groups(model: nn.Module, recipe: TrainRecipe) -> list[dict[str, Any]]:
    """Groups for AdamW over everything in `model` that requires a gradient, in a fixed order.

    Each group carries `name` (`projector`, `language_model`, `vision_tower`, with `/no_decay` for vectors and biases,
    which are never decayed) and `peak_lr`, from which the loop sets `lr` at every step.
    """
    from llava.model.freezing import part_of
    from llava.model.partitions import whole_shape

    peaks = {
        "projector": recipe.projector_learning_rate or recipe.learning_rate,
        "language_model": recipe.learning_rate,
        "vision_tower": recipe.vision_tower_learning_rate or recipe.learning_rate,
    }
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = part_of(name)
        decayed = recipe.weight_decay > 0 and len(whole_shape(parameter)) >= 2
        key = part if decayed or recipe.weight_decay == 0 else f"{part}/no_decay"
        group = groups.setdefault(
            key,
            {
                "name": key,
                "params": [],
                "peak_lr": peaks[part],
                "lr": peaks[part],
                "weight_decay": recipe.weight_decay if decayed else 0.0,
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]
