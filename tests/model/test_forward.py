"""The training forward beside the packing contract: text-only batches, frozen parts, counts, memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from llava.model import attention, features
from llava.model.forward import merged_embeddings, supervised_logits
from llava.model.freezing import set_trainable
from tests.model.batches import make_row, packed, padded

Built = Callable[..., tuple[Any, Any]]


def test_logits_stand_at_the_targets_only(built: Built) -> None:
    model, _ = built()
    rows = [make_row(model, text=9, seed=1), make_row(model, text=20, seed=2)]
    batch = packed(rows)
    logits = supervised_logits(model, batch)
    assert logits.shape == (9 // 2 + 20 // 2, model.config.text_config.vocab_size)


def test_unused_tower_layers_do_not_run_and_the_rest_is_stock(built: Built) -> None:
    model, _ = built()
    calls: list[int] = []
    for i, layer in enumerate(model.model.vision_tower.encoder.layers):
        layer.register_forward_hook(lambda *_, i=i: calls.append(i))
    pixels = torch.randn(2, 3, 48, 48)
    ours = features.tower_features(model, pixels)
    assert calls == [0, 1]
    stock = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    assert torch.equal(ours, stock)


@pytest.mark.parametrize(("layer", "strategy", "tokens"), [(-1, "default", 16), (1, "full", 17), (2, "full", 17)])
def test_other_layers_and_the_class_token(layer: int, strategy: str, tokens: int, built: Built) -> None:
    model, _ = built(vision_feature_layer=layer, vision_feature_select_strategy=strategy)
    pixels = torch.randn(1, 3, 48, 48)
    ours = torch.stack(features.image_features(model, pixels))
    assert ours.shape == (1, tokens, 48)
    assert tokens == model.config.image_seq_length
    torch.testing.assert_close(ours[0], model.get_image_features(pixels).pooler_output[0], rtol=0, atol=1e-6)


def test_a_frozen_tower_records_no_graph_and_a_trained_one_does(built: Built) -> None:
    model, _ = built()
    pixels = torch.randn(1, 3, 48, 48)
    set_trainable(model, "finetune")
    assert not features.tower_features(model, pixels).requires_grad
    set_trainable(model, "finetune", train_tower=True)
    assert features.tower_features(model, pixels).requires_grad
    with torch.no_grad():
        assert not features.tower_features(model, pixels).requires_grad


@pytest.mark.parametrize("layout", [packed, padded])
def test_text_only_batches_touch_tower_and_projector_and_change_nothing(layout: Any, built: Built) -> None:
    model, _ = built()
    set_trainable(model, "finetune")
    touched: list[str] = []
    model.model.vision_tower.pre_layrnorm.register_forward_hook(lambda *_: touched.append("tower"))
    model.model.multi_modal_projector.register_forward_hook(lambda *_: touched.append("projector"))
    batch = layout([make_row(model, text=12, images=0, seed=3)])
    assert not batch.has_images
    logits = supervised_logits(model, batch)
    logits.logsumexp(-1).sum().backward()
    assert touched == ["tower", "projector"]
    for parameter in model.model.multi_modal_projector.parameters():
        assert parameter.grad is not None, "a rank without a gradient would leave the others waiting"
        assert torch.count_nonzero(parameter.grad) == 0
    plain = model.lm_head(
        model.model.language_model(inputs_embeds=model.get_input_embeddings()(batch.input_ids_BT)).last_hidden_state
    )
    torch.testing.assert_close(logits, plain[0, batch.target_index_K], rtol=0, atol=1e-6)


@pytest.mark.parametrize("extra", [-1, 1])
def test_wrong_number_of_placeholders_is_an_error(extra: int, built: Built) -> None:
    model, _ = built()
    row = make_row(model, text=9)
    row.ids = row.ids[:2] + [model.config.image_token_index] * (16 + extra) + row.ids[18:]
    row.answer += extra
    with pytest.raises(ValueError, match=f"{16 + extra} image placeholders in the ids for 16 visual tokens"):
        merged_embeddings(model, packed([row]))


def test_left_padding_makes_no_nan_anywhere(built: Built) -> None:
    model, _ = built()
    set_trainable(model, "finetune")
    batch = padded([make_row(model, text=9, seed=1), make_row(model, text=40, seed=2)], side="left")
    supervised_logits(model, batch).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_padded_mask_for_both_sides() -> None:
    mask = attention.padded_mask(torch.tensor([[1, 1, 0], [0, 1, 1]]))
    right = [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    left = [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert mask.int().tolist() == [[right], [left]]


def test_generation_still_uses_its_cache_and_mask(built: Built) -> None:
    """Without boundaries the installed attention is transformers' sdpa: left-padded batches answer like single rows."""
    model, processor = built()
    ids = [[1, *range(300, 309)], [1, *range(310, 314)]]
    one_by_one = [
        model.generate(input_ids=torch.tensor([row]), max_new_tokens=6, do_sample=False, use_cache=True)[0, len(row) :]
        for row in ids
    ]
    pad = processor.tokenizer.pad_token_id
    batch = torch.tensor([ids[0], [pad] * 5 + ids[1]])
    out = model.generate(
        input_ids=batch, attention_mask=(batch != pad).long(), max_new_tokens=6, do_sample=False, use_cache=True
    )
    assert [row[10:].tolist() for row in out] == [row.tolist() for row in one_by_one]
