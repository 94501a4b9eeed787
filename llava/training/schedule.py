"""The learning-rate schedule, a pure function of the step: a resumed run has nothing to restore."""

from __future__ import annotations

import math

from llava.config import TrainRecipe


def factor(step: int, total: int, recipe: TrainRecipe) -> float:
    """What every peak learning rate is multiplied by at 0-based `step` of `total`.

    Linear warm-up over `ceil(warmup_ratio * total)` steps whose first step already moves, then cosine to zero
    (Loshchilov and Hutter 2017), linear to zero, or constant.
    """
    warmup = math.ceil(recipe.warmup_ratio * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0 - progress if recipe.schedule == "linear" else 1.0
