"""What each stage moves, and what it never may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from llava.config import LoraRecipe
from llava.errors import SettingsError
from llava.model.forward import supervised_logits
from llava.model.freezing import part_of, set_trainable
from llava.model.lora import add_lora
from tests.model.batches import make_row, packed

Built = Callable[..., tuple[Any, Any]]


def moved_by_one_step(model: Any) -> set[str]:
    """Names of the tensors that one optimiser step changes, bit for bit."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    supervised_logits(model, packed([make_row(model, text=20, seed=1)])).logsumexp(-1).sum().backward()
    optimiser.step()
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def test_pretrain_moves_the_projector_only(built: Built) -> None:
    model, _ = built()
    set_trainable(model, "pretrain")
    moved = moved_by_one_step(model)
    assert moved == {name for name in model.state_dict() if "multi_modal_projector" in name}


def test_finetune_moves_projector_and_language_model(built: Built) -> None:
    model, _ = built()
    set_trainable(model, "finetune")
    moved = moved_by_one_step(model)
    assert moved == {name for name in model.state_dict() if "vision_tower" not in name}
    assert {part_of(name) for name in moved} == {"projector", "language_model"}


def test_a_trained_tower_moves_up_to_the_used_layer(built: Built) -> None:
    model, _ = built()
    set_trainable(model, "finetune", train_tower=True)
    moved = {name for name in moved_by_one_step(model) if "vision_tower" in name}
    assert any("encoder.layers.1." in name for name in moved)
    assert not any("encoder.layers.2." in name or "post_layernorm" in name for name in moved)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_w_is_one_matrix(stage: Any, built: Built) -> None:
    model, _ = built(projector="linear")
    projector = model.model.multi_modal_projector
    features = torch.randn(5, 32)
    expected = torch.nn.functional.linear(features, projector.linear_1.weight, projector.linear_1.bias)
    torch.testing.assert_close(projector(features), expected)
    set_trainable(model, stage)
    moved = {name for name in moved_by_one_step(model) if "multi_modal_projector" in name}
    assert moved == {f"model.multi_modal_projector.linear_1.{part}" for part in ("weight", "bias")}


def test_identity_passes_features_through_and_has_no_stage_1(built: Built, tmp_path: Any) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=48,
            patch_size=12,
        )
    ).save_pretrained(tmp_path)
    model, _ = built(vision_tower=str(tmp_path), projector="identity")
    features = torch.randn(5, 48)
    assert torch.equal(model.model.multi_modal_projector(features), features)
    with pytest.raises(SettingsError, match="identity has nothing to train in stage 1"):
        set_trainable(model, "pretrain")
    set_trainable(model, "finetune")
    assert not any("multi_modal_projector" in name for name in moved_by_one_step(model))


def test_lora_moves_adapters_and_projector(built: Built) -> None:
    model, _ = built()
    add_lora(model, LoraRecipe(r=4, alpha=8, dropout=0.0))
    set_trainable(model, "finetune")
    moved = moved_by_one_step(model)
    assert {name for name in moved if "lora_" not in name} == {
        n for n in model.state_dict() if "multi_modal_projector" in n
    }
    assert any("lora_B" in name for name in moved)


def test_stages_do_not_leave_traces(built: Built) -> None:
    model, _ = built()
    set_trainable(model, "finetune", train_tower=True)
    set_trainable(model, "pretrain")
    assert {part_of(name) for name, p in model.named_parameters() if p.requires_grad} == {"projector"}
