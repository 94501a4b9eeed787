"""[Contract] Stage 1 moves W and nothing else; stage 2 moves W and φ, never the tower. Bitwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from llava.telemetry import Telemetry
from llava.training.engine import Engine
from llava.training.modelling import build_model_for, build_processor_for
from llava.training.training_rows import load_rows
from tests.conftest import TinyWorld
from tests.training.jobs import make_job

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_rank")]


def changed(stage: str, recipe: Path, world: TinyWorld, out: Path, **fields: Any) -> tuple[set[str], set[str]]:
    """Names of the parameters that three real steps changed, and of those they left alone."""
    job = make_job(stage, recipe, world, out, **fields)
    processor = build_processor_for(job)
    rows = load_rows(job, processor, Telemetry(stage, "test", rank=1), 0, 1, torch.device("cpu"))
    model = build_model_for(job, processor, torch.device("cpu"))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    engine = Engine(model, job.train, 1)
    for work in rows.batches(0):
        for index, batch in enumerate(work.micro_batches):
            engine.micro(batch, work.supervised, last=index == len(work.micro_batches) - 1)
        engine.update(1.0)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p.detach(), before[name])}
    engine.close()
    return moved, before.keys() - moved


def test_stage_1_moves_only_the_projector(tiny_recipe: Path, tiny_world: TinyWorld, tmp_path: Path) -> None:
    moved, still = changed("pretrain", tiny_recipe, tiny_world, tmp_path, max_steps=3)
    assert moved == {f"model.multi_modal_projector.linear_{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}
    assert any("language_model" in name for name in still)
    assert any("vision_tower" in name for name in still)


def test_stage_2_moves_projector_and_language_model_but_not_the_tower(
    tiny_recipe: Path, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    moved, still = changed("finetune", tiny_recipe, tiny_world, tmp_path, max_steps=3, packing=True)
    assert all("vision_tower" in name for name in still)
    assert not any("vision_tower" in name for name in moved)


def test_a_tower_with_a_learning_rate_moves_up_to_the_layer_used(
    tiny_recipe: Path, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    moved, still = changed("finetune", tiny_recipe, tiny_world, tmp_path, max_steps=3, vision_tower_learning_rate=1e-3)
    assert any("vision_tower.encoder.layers.0." in name for name in moved)
    assert all(".layers.2." in name or "post_layernorm" in name for name in still)


def test_adapters_move_and_what_they_adapt_does_not(tiny_recipe: Path, tiny_world: TinyWorld, tmp_path: Path) -> None:
    moved, _ = changed("finetune", tiny_recipe, tiny_world, tmp_path, max_steps=3, lora={"r": 4, "alpha": 8})
    assert moved
    assert all("lora_" in name or "multi_modal_projector" in name for name in moved)
