"""QLoRA: 4-bit language layers under adapters, merged and saved whole. Needs bitsandbytes (the extra `qlora`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.config import LoraRecipe, ModelRecipe
from llava.errors import SettingsError
from llava.model import lora, saving
from llava.model.build import build_model, build_processor
from llava.model.forward import supervised_logits
from llava.model.freezing import set_trainable
from tests.model.batches import make_row, packed
from tests.model.conftest import TEMPLATE
from tests.model.test_saving import GOLDEN, keys_of

RecipeOf = Callable[..., ModelRecipe]


def test_without_bitsandbytes_the_way_out_is_named(recipe_of: RecipeOf, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    recipe = recipe_of()
    processor = build_processor(recipe, TEMPLATE, "pad")
    with pytest.raises(SettingsError, match="bitsandbytes is not installed; install the extra qlora"):
        build_model(recipe, tokenizer=processor.tokenizer, quantize_4bit=True)


@pytest.fixture
def wide_llama(tmp_path: Path, tiny_llama_dir: Path) -> Path:
    """4-bit blocks are 64 values: a width that they divide."""
    import shutil

    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(tiny_llama_dir, tmp_path / "llama")
    config = LlamaConfig.from_pretrained(tiny_llama_dir)
    config.update({"hidden_size": 64, "intermediate_size": 128, "head_dim": 16})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.mark.slow
def test_trains_adapters_and_saves_whole_weights(recipe_of: RecipeOf, wide_llama: Path, tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="install the extra qlora")
    recipe = recipe_of(language_model=str(wide_llama))
    processor = build_processor(recipe, TEMPLATE, "pad")
    model: Any = build_model(recipe, tokenizer=processor.tokenizer, quantize_4bit=True)
    quantised = [n for n, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(quantised) == 2 * 7
    assert all(name.startswith("model.language_model.layers.") for name in quantised)
    lora.add_lora(model, LoraRecipe(r=4, alpha=16, dropout=0.0, target_modules=["q_proj", "down_proj"]))
    set_trainable(model, "finetune")
    model.train()  # in eval mode bitsandbytes' CPU kernel rounds its scales to bf16
    batch = packed([make_row(model, text=20, seed=1)])
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(16):
        loss = torch.nn.functional.cross_entropy(supervised_logits(model, batch), batch.target_ids_K)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    unmerged = supervised_logits(model, batch).detach()
    saving.save_model(model, processor, str(tmp_path / "m"))
    assert keys_of(tmp_path / "m") == json.loads(GOLDEN.read_text())["llava"]
    assert "quantization_config" not in (tmp_path / "m" / "config.json").read_text()
    again = saving.load_model(str(tmp_path / "m"))
    with torch.no_grad():
        torch.testing.assert_close(supervised_logits(again, batch), unmerged, rtol=0, atol=1e-4)
        lora.merge(model)
        torch.testing.assert_close(supervised_logits(model, batch), unmerged, rtol=0, atol=1e-4)
