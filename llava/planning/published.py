"""The published configurations of the base models that the bundled recipes name.

`llava plan` reads sizes from here, so that planning needs no network and no download; building a model always reads the
model's own files.
"""

from __future__ import annotations

from typing import Any

_CLIP_L = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
}
_VICUNA = {"hidden_act": "silu", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "vocab_size": 32000}
_VICUNA_7B = {
    **_VICUNA,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
}
_VICUNA_13B = {
    **_VICUNA,
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "num_key_value_heads": 40,
}

TOWERS: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14": {**_CLIP_L, "image_size": 224},
    "openai/clip-vit-large-patch14-336": {**_CLIP_L, "image_size": 336},
}
LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "lmsys/vicuna-7b-v1.3": {**_VICUNA_7B, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6},
    "lmsys/vicuna-7b-v1.5": _VICUNA_7B,
    "lmsys/vicuna-13b-v1.5": _VICUNA_13B,
}
