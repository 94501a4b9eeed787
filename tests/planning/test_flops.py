"""The FLOP model against torch's own counter on meta-device models, part by part and exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from llava.config import LoraRecipe, ModelRecipe
from llava.model.build import build_model
from llava.model.checkpointing import checkpoint_every
from llava.model.forward import supervised_logits
from llava.model.freezing import set_trainable
from llava.model.lora import add_lora
from llava.model.special_tokens import load_tokenizer
from llava.planning import flops
from llava.planning.shape import Shape
from tests.model.batches import TestBatch
from tests.model.conftest import FAMILIES
from tests.planning.published import write_hub_directory

RecipeOf = Callable[..., ModelRecipe]
LORA = LoraRecipe(r=4, alpha=8, dropout=0.0)


def meta_pack(model: Any, documents: list[int], positions: int, images: int) -> TestBatch:
    """A pack of that size without content."""
    side, total = model.config.vision_config.image_size, sum(documents)
    empty = lambda *shape: torch.zeros(*shape, dtype=torch.long, device="meta")  # noqa: E731
    bounds = [sum(documents[:i]) for i in range(len(documents) + 1)]
    return TestBatch(
        input_ids_BT=empty(1, total),
        position_ids_BT=empty(1, total),
        attention_mask_BT=None,
        cu_seqlens_N=torch.tensor(bounds, dtype=torch.int32),
        max_seqlen=max(documents),
        pixel_values_ICHW=torch.zeros(images, 3, side, side, device="meta"),
        has_images=True,
        image_sizes_I2=None,
        target_index_K=empty(positions),
        target_ids_K=empty(positions),
    )


def counted(model: Any, batch: TestBatch) -> dict[str, float]:
    with FlopCounterMode(display=False) as counter:
        supervised_logits(model, batch).sum().backward()
    operations = {str(name): float(value) for name, value in counter.get_flop_counts()["Global"].items()}
    found = {
        "matrices": operations.pop("aten.mm", 0) + operations.pop("aten.addmm", 0),
        "attention": operations.pop("aten.bmm"),
        "patches": operations.pop("aten.convolution") + operations.pop("aten.convolution_backward", 0),
    }
    assert not operations
    return found


def expected(shape: Shape, stage: Any, documents: list[int], positions: int, images: int, **more: Any) -> Any:
    """Our parts in the counter's terms: it counts both halves of causal attention."""
    ours = flops.step_flops(shape, stage, documents=documents, positions=positions, images=images, **more)
    passes = 3 if more.get("train_tower") else 1
    tower_attention = passes * images * shape.tower_used * 4 * (shape.patches + 1) ** 2 * shape.tower_width
    patches = 2 * images * shape.patches * 3 * shape.patch**2 * shape.tower_width
    patches *= 2 if more.get("train_tower") else 1  # the pixels need no gradient
    every = more.get("checkpoint_every")
    share = len(range(0, shape.layers, every)) / shape.layers if every else 0
    again_attention = flops.language_attention(shape, documents) * share
    return pytest.approx(
        {
            "matrices": ours.hardware - tower_attention - patches - ours.language_attention - again_attention,
            "attention": 2 * (ours.language_attention + again_attention) + tower_attention,
            "patches": patches,
        },
        rel=1e-9,
    )


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_llava_7b_at_full_size(stage: Any, tmp_path: Path) -> None:
    parts = {
        "vision_tower": str(write_hub_directory(tmp_path, "openai/clip-vit-large-patch14-336")),
        "language_model": str(write_hub_directory(tmp_path, "lmsys/vicuna-7b-v1.5")),
    }
    recipe = ModelRecipe(**parts)
    model = build_model(recipe, tokenizer=load_tokenizer(recipe.language_model), meta=True)
    set_trainable(model, stage)
    shape = Shape.of(model.config, recipe.projector)
    documents = [700, 1324]
    assert counted(model, meta_pack(model, documents, 300, 2)) == expected(shape, stage, documents, 300, 2)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [0, 1, 2])
@pytest.mark.parametrize("stage", ["pretrain", "finetune", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_stage_and_family(family: str, stage: str, checkpoint: int, recipe_of: RecipeOf) -> None:
    recipe = recipe_of(family)
    model = build_model(recipe, tokenizer=load_tokenizer(recipe.language_model), meta=True)
    more: dict[str, Any] = {"checkpoint_every": checkpoint}
    if stage == "lora":
        with torch.device("meta"):
            add_lora(model, LORA)
        more["lora"] = LORA
    real_stage: Any = "pretrain" if stage == "pretrain" else "finetune"
    set_trainable(model, real_stage)
    model.train()
    checkpoint_every(model, checkpoint)
    shape = Shape.of(model.config, recipe.projector)
    documents = [30, 61, 22]
    found = counted(model, meta_pack(model, documents, 40, 2))
    assert found == expected(shape, real_stage, documents, 40, 2, **more)


@pytest.mark.parametrize("kind", ["linear", "mlp2x_gelu", "mlp3x_gelu"])
@pytest.mark.parametrize("train_tower", [False, True])
def test_projectors_and_a_trained_tower(kind: str, train_tower: bool, recipe_of: RecipeOf) -> None:
    recipe = recipe_of(projector=kind)
    model = build_model(recipe, tokenizer=load_tokenizer(recipe.language_model), meta=True)
    set_trainable(model, "finetune", train_tower=train_tower)
    shape = Shape.of(model.config, kind)
    found = counted(model, meta_pack(model, [30, 61], 40, 2))
    assert found == expected(shape, "finetune", [30, 61], 40, 2, train_tower=train_tower)


def vicuna_7b() -> Shape:
    from llava.planning.stage_plan import shape_of

    return shape_of(
        ModelRecipe(vision_tower="openai/clip-vit-large-patch14-336", language_model="lmsys/vicuna-7b-v1.5")
    )


def test_published_figures() -> None:
    """FACTS 5: ViT-L/14-336 0.365 TF; stage 1 16.3 TF at 24 text tokens, stage 2 33.4 TF at 256."""
    shape = vicuna_7b()
    assert flops.tower_forward(shape) == pytest.approx(0.365e12, rel=0.005)
    first = flops.step_flops(shape, "pretrain", documents=[600], positions=24, images=1)
    assert first.total == pytest.approx(16.3e12, rel=0.005)
    second = flops.step_flops(shape, "finetune", documents=[832], positions=128, images=1)
    assert second.total == pytest.approx(33.4e12, rel=0.005)


def test_full_checkpointing_costs_what_the_facts_say() -> None:
    """+48 % of hardware FLOPs in stage 1, +32 % in stage 2, less the down projections that our way does not repeat."""
    shape = vicuna_7b()
    stages: list[tuple[Any, int, int, float]] = [("pretrain", 600, 24, 0.48), ("finetune", 832, 128, 0.32)]
    for stage, tokens, positions, share in stages:
        cost = flops.step_flops(shape, stage, documents=[tokens], positions=positions, images=1, checkpoint_every=1)
        spared = 2 * shape.layers * shape.width * shape.hidden * tokens
        assert (cost.recomputed + spared) / cost.total == pytest.approx(share, abs=0.015)
        assert cost.hardware == cost.total + cost.recomputed


def test_scaling_is_by_part() -> None:
    one = flops.step_flops(vicuna_7b(), "pretrain", documents=[600], positions=24, images=1)
    assert one.scaled(3).total == pytest.approx(3 * one.total)
    assert one.scaled(3).head == 3 * one.head
