"""The published models at their true sizes, on the meta device: names and shapes of every parameter, no values."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from llava.planning import published
from llava.training.fragments import MOMENTS, Fragment

MODELS = {"7b": "lmsys/vicuna-7b-v1.5", "13b": "lmsys/vicuna-13b-v1.5"}
TOWER = "openai/clip-vit-large-patch14-336"


@dataclass(frozen=True)
class TrueModel:
    """A joined LLaVA.

    Attributes:
        model: on the meta device.
        trained: name -> shape of what each stage moves.
    """

    model: torch.nn.Module
    trained: dict[str, dict[str, tuple[int, ...]]]


@functools.cache
def true_model(size: str) -> TrueModel:
    """LLaVA-1.5 of `size`, as transformers makes it of the published configurations."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    text = LlamaConfig(**(published.LANGUAGE_MODELS[MODELS[size]] | {"vocab_size": 32064}))
    config = LlavaConfig(vision_config=CLIPVisionConfig(**published.TOWERS[TOWER]), text_config=text)
    with torch.device("meta"):
        model = LlavaForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    named = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return TrueModel(
        model,
        {
            "pretrain": {name: shape for name, shape in named.items() if "multi_modal_projector" in name},
            "finetune": {name: shape for name, shape in named.items() if "vision_tower" not in name},
        },
    )


def fragments_of(shapes: dict[str, tuple[int, ...]], rank: int, world_size: int, zero_stage: int) -> list[Fragment]:
    """What a rank holds: everything (no ZeRO), a stretch of all laid end to end (1, 2), or a part of each (3).

    The tensors are on the meta device.
    """
    found = []
    total = sum(torch.Size(shape).numel() for shape in shapes.values())
    part = -(-total // world_size)
    low, high = rank * part, min(total, (rank + 1) * part)
    at = 0
    for name, shape in shapes.items():
        numel = torch.Size(shape).numel()
        if zero_stage == 0:
            start, end = 0, numel
        elif zero_stage == 3:
            each = -(-numel // world_size)
            start, end = min(numel, rank * each), min(numel, (rank + 1) * each)
        else:
            start, end = max(low - at, 0), min(high - at, numel)
        at += numel
        if start >= end:
            continue
        tensors = [torch.empty(end - start, device="meta") for _ in range(3)]
        moments = dict(zip(MOMENTS, tensors[1:], strict=True))
        found.append(Fragment(name, shape, start, end - start, tensors[0], moments, shared=zero_stage == 0))
    return found
