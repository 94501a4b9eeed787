"""Tiny models of other families, and models built once for tests that do not change them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llava.config import ModelRecipe

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
FAMILIES = ("llama", "mistral", "qwen2")


@pytest.fixture(scope="session")
def tiny_lm_dirs(tmp_path_factory: pytest.TempPathFactory, tiny_llama_dir: Path) -> dict[str, Path]:
    """Random language models by family: Llama; Mistral with a short sliding window; Qwen2 with tied embeddings."""
    import shutil

    import torch
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    dirs = {"llama": tiny_llama_dir}
    for family, cls, config in (
        ("mistral", MistralForCausalLM, MistralConfig(**shape, sliding_window=12)),
        ("qwen2", Qwen2ForCausalLM, Qwen2Config(**shape, tie_word_embeddings=True)),
    ):
        folder = tmp_path_factory.mktemp(f"tiny-{family}")
        with torch.random.fork_rng():
            torch.manual_seed(2)
            cls(config).save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy2(tiny_llama_dir / name, folder / name)
        dirs[family] = folder
    return dirs


@pytest.fixture(scope="session")
def recipe_of(tiny_clip_dir: Path, tiny_lm_dirs: dict[str, Path]) -> Callable[..., ModelRecipe]:
    """A model recipe over the tiny parts: `recipe_of("mistral", projector="linear")`."""

    def make(family: str = "llama", **fields: Any) -> ModelRecipe:
        return ModelRecipe(
            **{"vision_tower": str(tiny_clip_dir), "language_model": str(tiny_lm_dirs[family]), **fields}
        )

    return make


@pytest.fixture(scope="session")
def built(recipe_of: Callable[..., ModelRecipe]) -> Callable[..., tuple[Any, Any]]:
    """A freshly built (model, processor)."""

    def make(family: str = "llama", **fields: Any) -> tuple[Any, Any]:
        from llava.model.build import build_model, build_processor

        recipe = recipe_of(family, **fields)
        processor = build_processor(recipe, TEMPLATE, "pad")
        return build_model(recipe, tokenizer=processor.tokenizer), processor

    return make
