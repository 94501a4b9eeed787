"""What the CUDA path does, without a GPU: on meta tensors, which have shapes and no values.

Asking such a tensor for a value (`.item()`, `.tolist()`, a condition) raises, so the forward test fails on every host
sync. The kernel's numbers need a GPU; here its wiring is proven (layout, shapes, window, grouped heads).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import varlen

from llava.config import ModelRecipe
from llava.errors import SettingsError
from llava.model import attention, kernels
from llava.model.build import build_model
from llava.model.checkpointing import checkpoint_every
from llava.model.forward import supervised_logits
from llava.model.special_tokens import load_tokenizer
from tests.planning.test_flops import meta_pack


@pytest.mark.parametrize("images", [0, 2])
def test_the_forward_asks_the_device_for_nothing(
    images: int, recipe_of: Callable[..., ModelRecipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of()
    model: Any = build_model(recipe, tokenizer=load_tokenizer(recipe.language_model), meta=True)
    batch = meta_pack(model, [30, 61], 20, max(1, images))
    batch.has_images = images > 0
    batch.cu_seqlens_N = torch.zeros(3, dtype=torch.int32, device="meta")
    with pytest.raises((NotImplementedError, RuntimeError)):
        supervised_logits(model, batch)  # off the GPU the exact path reads the boundaries: the probe sees that

    def kernel(*x: Any) -> torch.Tensor:
        return attention._varlen(x[0], x[1], x[2], x[3], longest=batch.max_seqlen, scaling=x[5], window=x[6])

    monkeypatch.setattr(attention, "_by_document", kernel)
    with torch.no_grad():
        logits = supervised_logits(model, batch)
    assert logits.is_meta
    assert logits.shape == (20, model.config.text_config.vocab_size)


@pytest.mark.slow
@pytest.mark.parametrize("every_n_layers", [0, 1])
def test_a_compiled_layer_is_one_graph_for_packs_of_any_size(
    every_n_layers: int, recipe_of: Callable[..., ModelRecipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fullgraph` raises on whatever the compiler cannot follow, and so would run a layer in pieces."""
    recipe = recipe_of()
    model: Any = build_model(recipe, tokenizer=load_tokenizer(recipe.language_model), meta=True)
    attention.install(model)
    checkpoint_every(model, every_n_layers)
    model.train()
    monkeypatch.setattr(
        attention,
        "_by_document",
        lambda *x: attention._varlen(x[0], x[1], x[2], x[3], longest=61, scaling=x[5], window=x[6]),
    )
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for layer in model.model.language_model.layers:
        layer.compile(backend="eager", fullgraph=True)
    for documents in ([30, 61], [20, 33], [11, 12, 50], [5, 6, 7, 61], [13, 14, 15, 16, 17]):
        batch = meta_pack(model, documents, 20, 1)
        batch.cu_seqlens_N = torch.zeros(len(documents) + 1, dtype=torch.int32, device="meta")
        assert supervised_logits(model, batch).shape[0] == 20
    # One for the first pack, one for any length, one for any number of documents too.
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3
    torch._dynamo.reset()


@pytest.mark.parametrize(("window", "passed"), [(None, -1), (12, 11), (61, -1), (60, 59)])
@pytest.mark.parametrize("groups", [2, 4])
def test_the_kernel_is_called_as_it_wants(
    groups: int, window: int | None, passed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def watched(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *bounds: Any, **options: Any) -> Any:
        calls.append(
            {"shapes": (tuple(query.shape), tuple(key.shape), tuple(value.shape)), "longest": bounds[2:], **options}
        )
        return torch.empty_like(query)

    monkeypatch.setattr(varlen, "varlen_attn", watched)
    monkeypatch.setattr(attention, "_KERNEL_GROUPS_HEADS", True)
    empty = lambda heads: torch.empty(1, heads, 91, 16, device="meta", dtype=torch.bfloat16)  # noqa: E731
    bounds = torch.zeros(3, dtype=torch.int32, device="meta")
    out = attention._varlen(empty(4), empty(groups), empty(groups), bounds, 61, 0.25, window)
    assert out.shape == (1, 91, 4, 16)
    assert calls == [
        {
            "shapes": ((91, 4, 16), (91, groups, 16), (91, groups, 16)),
            "longest": (61, 61),
            "scale": 0.25,
            "window_size": (passed, 0),
            **({"enable_gqa": True} if groups != 4 else {}),
        }
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_fused_kernels_need_a_gpu(recipe_of: Callable[..., ModelRecipe]) -> None:
    recipe = recipe_of()
    model: Any = build_model(recipe, tokenizer=load_tokenizer(recipe.language_model), meta=True)
    with pytest.raises(SettingsError, match="kernels: found liger"):
        kernels.use_liger(model)
