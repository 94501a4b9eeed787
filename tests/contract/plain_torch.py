"""A run as a textbook writes it: stock model, row by row, torch's AdamW and clipping. Nothing of `llava.training`.

[Contract] What our loop reports and leaves behind is compared with this, so it must never call the loop's own parts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from transformers import LlavaForConditionalGeneration

from llava.config import TrainRecipe
from llava.data.dataset import Example

TRAINED = {"pretrain": ("multi_modal_projector",), "finetune": ("multi_modal_projector", "language_model", "lm_head")}


@dataclass
class PlainRun:
    """Loss, learning rate and gradient norm of each step, and the model as it is after the last."""

    model: Any
    loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)


def train_plainly(
    start: Any, stage: str, recipe: TrainRecipe, steps: Sequence[Sequence[Example]], factors: Sequence[float]
) -> PlainRun:
    """Train a copy of `start` on the rows of each step, the learning rates being `factors` times their peaks."""
    config = copy.deepcopy(start.config)
    config._attn_implementation = config.text_config._attn_implementation = "eager"
    model: Any = LlavaForConditionalGeneration(config)
    model.load_state_dict(start.state_dict())
    run = PlainRun(model)
    groups = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in TRAINED[stage]))
        if parameter.requires_grad:
            peak = recipe.projector_learning_rate if "multi_modal_projector" in name else None
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            groups.append({"params": [parameter], "peak": peak or recipe.learning_rate, "weight_decay": decay})
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=recipe.betas, eps=recipe.eps)
    for rows, factor in zip(steps, factors, strict=True):
        model.zero_grad()
        tokens = sum(int((row.labels[1:] != -100).sum()) for row in rows)
        loss = torch.zeros(())
        for row in rows:
            ids_1T, labels_T = torch.tensor(row.input_ids[None]).long(), torch.tensor(row.labels).long()
            pixels = torch.tensor(row.pixels) if len(row.pixels) else None
            logits_TV = model(input_ids=ids_1T, pixel_values=pixels, use_cache=False).logits[0]
            loss = loss + F.cross_entropy(logits_TV[:-1], labels_T[1:], ignore_index=-100, reduction="sum") / tokens
        loss.backward()
        most = recipe.max_grad_norm or float("inf")
        run.grad_norm.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), most)))
        for group in optimizer.param_groups:
            group["lr"] = factor * group["peak"]
        optimizer.step()
        run.loss.append(float(loss.detach()))
        run.learning_rate.append(factor * recipe.learning_rate)
    return run
