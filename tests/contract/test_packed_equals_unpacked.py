"""A pack is only a layout: loss and gradients are those of the rows by themselves, for every family and projector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from llava.model.attention import packed_attention
from llava.model.forward import supervised_logits
from llava.model.freezing import set_trainable
from tests.model.batches import TestBatch, make_row, packed, padded
from tests.model.conftest import FAMILIES, built, recipe_of, tiny_lm_dirs  # noqa: F401  (fixtures)

Built = Callable[..., tuple[Any, Any]]


def loss_and_gradients(model: Any, batches: list[TestBatch]) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed cross entropy over all batches divided by all targets, and the gradient of every trained parameter."""
    model.zero_grad(set_to_none=True)
    total = sum(len(batch.target_ids_K) for batch in batches)
    loss = torch.zeros(())
    for batch in batches:
        part = F.cross_entropy(supervised_logits(model, batch), batch.target_ids_K, reduction="sum") / total
        part.backward()
        loss += part.detach()
    return loss, torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None])


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_is_padded_is_one_by_one(family: str, stage: Any, built: Built) -> None:  # noqa: F811
    model, _ = built(family)
    set_trainable(model, stage)
    rows = [
        make_row(model, text=9, seed=1),
        make_row(model, text=31, images=2, seed=2, before=4),
        make_row(model, text=12, images=0, seed=3),
        make_row(model, text=20, seed=4),
    ]
    alone = loss_and_gradients(model, [padded([row]) for row in rows])
    for layout in ([packed(rows)], [padded(rows)], [padded(rows, side="left")], [packed(rows[:1]), packed(rows[1:])]):
        loss, gradient = loss_and_gradients(model, layout)
        torch.testing.assert_close(loss, alone[0], rtol=0, atol=1e-6)
        assert F.cosine_similarity(gradient, alone[1], dim=0) > 0.99999
        torch.testing.assert_close(gradient, alone[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_neighbours_of_a_row_do_not_matter(family: str, built: Built) -> None:  # noqa: F811
    model, _ = built(family)
    row = make_row(model, text=14, seed=1)
    with torch.no_grad():
        first = supervised_logits(model, packed([make_row(model, text=10, seed=5), row]))[-7:]
        second = supervised_logits(model, packed([make_row(model, text=10, seed=6), row]))[-7:]
    assert torch.equal(first, second)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_are_what_the_stock_class_computes(family: str, built: Built) -> None:  # noqa: F811
    model, _ = built(family)
    rows = [make_row(model, text=9, seed=1), make_row(model, text=21, seed=2)]
    with torch.no_grad():
        ours = supervised_logits(model, packed(rows))
        stock = []
        for row in rows:
            out = model(input_ids=torch.tensor([row.ids]), pixel_values=torch.stack(row.pixels), use_cache=False)
            stock.append(out.logits[0, row.answer - 1 : -1])
    torch.testing.assert_close(ours, torch.cat(stock), rtol=0, atol=1e-5)


def test_a_pack_is_refused_where_rows_would_see_each_other(built: Built) -> None:  # noqa: F811
    model, _ = built()
    model.model.language_model.config._attn_implementation = "sdpa"
    with pytest.raises(RuntimeError, match="without the packed attention"):
        supervised_logits(model, packed([make_row(model, text=9)]))


@pytest.mark.parametrize("scaling", [None, 0.07])
@pytest.mark.parametrize("groups", [4, 2])
def test_the_exact_path_scales_scores_as_it_is_told(groups: int, scaling: float | None) -> None:
    """By the definition, softmax(scale q k^T) v over each document's past; families scale by rules of their own."""
    torch.manual_seed(0)
    query = torch.randn(1, 4, 7, 8)
    key, value = torch.randn(1, groups, 7, 8), torch.randn(1, groups, 7, 8)
    bounds = torch.tensor([0, 3, 7], dtype=torch.int32)
    out, _ = packed_attention(torch.nn.Module(), query, key, value, None, scaling=scaling, cu_seqlens_N=bounds)
    wide_key, wide_value = (x.repeat_interleave(4 // groups, dim=1) for x in (key, value))
    scores = query @ wide_key.transpose(2, 3) * (8**-0.5 if scaling is None else scaling)
    position = torch.arange(7)
    document = (position >= 3).long()
    allowed = (position[None] <= position[:, None]) & (document[None] == document[:, None])
    expected = torch.softmax(scores.masked_fill(~allowed, float("-inf")), dim=-1) @ wide_value
    torch.testing.assert_close(out, expected.transpose(1, 2), rtol=1e-5, atol=1e-6)
