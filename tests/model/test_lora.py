"""Adapters: on the language model only, merged exactly, deterministic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from llava.config import LoraRecipe
from llava.errors import SettingsError
from llava.model import lora
from llava.model.forward import supervised_logits
from tests.model.batches import make_row, packed
from tests.model.conftest import FAMILIES

Built = Callable[..., tuple[Any, Any]]
RECIPE = LoraRecipe(r=4, alpha=16, dropout=0.0)


def adapted(built: Built, family: str = "llama") -> tuple[Any, Any]:
    """A model whose adapters already do something: B is zero at first, which would prove nothing."""
    model, processor = built(family)
    lora.add_lora(model, RECIPE)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model, processor


def test_adapters_never_leak_into_the_tower(built: Built) -> None:
    """The tower's attention has q_proj and k_proj too, which peft would match by name."""
    model, _ = built()
    lora.add_lora(model, RECIPE)
    names = [name for name, _ in model.named_parameters() if "lora_" in name]
    assert len(names) == 2 * 7 * 2  # two layers, seven projections, A and B
    assert all(name.startswith("model.language_model.layers.") for name in names)


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_is_unmerged(family: str, built: Built) -> None:
    model, _ = adapted(built, family)
    batch = packed([make_row(model, text=20, seed=1), make_row(model, text=9, seed=2)])
    with torch.no_grad():
        unmerged = supervised_logits(model, batch)
        lora.merge(model)
        merged = supervised_logits(model, batch)
    torch.testing.assert_close(merged, unmerged, rtol=0, atol=1e-5)
    fresh, _ = built(family)
    assert list(model.state_dict()) == list(fresh.state_dict())
    with torch.no_grad():
        assert (supervised_logits(fresh, batch) - merged).abs().max() > 1e-3, "the adapters did nothing"


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_state_dict_leaves_the_model_alone(family: str, built: Built) -> None:
    model, _ = adapted(built, family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    merged = lora.merged_state_dict(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    lora.merge(model)
    expected = model.state_dict()
    assert merged.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, rtol=0, atol=1e-6)


def test_start_is_the_base_model_and_the_seed_decides(built: Built) -> None:
    models = [built()[0] for _ in range(3)]
    batch = packed([make_row(models[0], text=9, seed=1)])
    with torch.no_grad():
        base = supervised_logits(models[0], batch)
        for model, seed in zip(models, (1, 1, 2), strict=True):
            lora.add_lora(model, RECIPE, seed=seed)
        assert torch.equal(supervised_logits(models[0], batch), base)
    a = [{n: p for n, p in model.named_parameters() if "lora_A" in n} for model in models]
    assert all(torch.equal(a[0][name], a[1][name]) for name in a[0])
    assert not all(torch.equal(a[0][name], a[2][name]) for name in a[0])


def test_an_unknown_target_is_named(built: Built) -> None:
    model, _ = built()
    with pytest.raises(SettingsError, match=r"c_attn not in this language model; it has .*q_proj"):
        lora.add_lora(model, LoraRecipe(target_modules=["q_proj", "c_attn"]))


def test_without_adapters_merging_is_nothing(built: Built) -> None:
    model, _ = built()
    assert lora.merged_state_dict(model).keys() == model.state_dict().keys()
    lora.merge(model)
