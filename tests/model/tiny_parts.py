"""Small random towers and language models of other families, written by transformers' own classes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

SIDE, PATCH = 48, 12
_TEXT: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
# What makes each family differ from Llama, at this size.
TEXTS: dict[str, dict[str, Any]] = {
    "llama": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "mistral": {"sliding_window": 12},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 16, "tie_word_embeddings": True},
    "phi3": {"sliding_window": None},
    "gemma": {"head_dim": 16, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True},
    "gemma3_text": {
        "head_dim": 16,
        "sliding_window": 12,
        "query_pre_attn_scalar": 24,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "tie_word_embeddings": True,
    },
    "smollm3": {"no_rope_layers": [1, 1, 1, 0], "tie_word_embeddings": True},
    "olmo2": {},
}


def write_language_model(folder: Path, family: str, tokenizer_dir: Path, **more: Any) -> Path:
    """A random causal language model of a family, with the tokenizer of `tokenizer_dir`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    words = len(AutoTokenizer.from_pretrained(tokenizer_dir))
    config = AutoConfig.for_model(family, **{**_TEXT, "vocab_size": words, **TEXTS.get(family, {}), **more})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(("q_norm.weight", "k_norm.weight", "layernorm.weight", "norm.weight")):
                    parameter.add_(torch.randn_like(parameter) * 0.2)  # fresh norms are ones, which hides mistakes
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy2(tokenizer_dir / name, folder / name)
    return folder


def write_siglip(folder: Path, *, whole: bool = True, vocab_size: int = 64) -> Path:
    """A random SigLIP as google/siglip2-*-384 ships: both halves, pooling head, image processor (bilinear, 0.5)."""
    import torch
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = SiglipConfig(
        vision_config={**sizes, "num_hidden_layers": 3, "image_size": SIDE, "patch_size": PATCH},
        text_config={**sizes, "num_hidden_layers": 1, "vocab_size": vocab_size, "max_position_embeddings": 16},
    )
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = SiglipModel(config)
    (model if whole else model.vision_model).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=2).save_pretrained(folder)
    return folder


def write_dinov2(folder: Path, **more: Any) -> Path:
    """A random DINOv2 with its image processor: short side 56, centre 48, ImageNet's mean and deviation."""
    import torch
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=SIDE, patch_size=PATCH, **more
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = Dinov2Model(config)
    model.save_pretrained(folder)
    BitImageProcessorPil(
        size={"shortest_edge": 56},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)
    return folder
