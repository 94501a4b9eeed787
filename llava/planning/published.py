"""The published configurations of the base models that the bundled recipes name.

`llava plan` and the checks before a run is submitted read sizes from here, so that they need no network, no download
and no torch; building a model always reads the model's own files.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from llava.config import ROUND_ROWS_TO, ModelRecipe
from llava.planning.shape import Shape

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

_LLAMA_3_8B = {
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "vocab_size": 128256,
}
_SIGLIP_SO400M = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
}


def _qwen3(width: int, hidden: int, layers: int, heads: int, *, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "qwen3",
        "head_dim": 128,
        "hidden_size": width,
        "intermediate_size": hidden,
        "max_position_embeddings": 40960,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": tied,
        "vocab_size": 151936,
    }


# `model_type` stands where it is not CLIP's or Llama's.
TOWERS: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14": {**_CLIP_L, "image_size": 224},
    "openai/clip-vit-large-patch14-336": {**_CLIP_L, "image_size": 336},
    "google/siglip2-so400m-patch14-384": {**_SIGLIP_SO400M, "image_size": 384, "patch_size": 14},
}
LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "lmsys/vicuna-7b-v1.3": {**_VICUNA_7B, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6},
    "lmsys/vicuna-7b-v1.5": _VICUNA_7B,
    "lmsys/vicuna-13b-v1.5": _VICUNA_13B,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA_3_8B,
    "Qwen/Qwen3-0.6B": _qwen3(1024, 3072, 28, 16, tied=True),
    "Qwen/Qwen3-4B": _qwen3(2560, 9728, 36, 32, tied=True),
    "Qwen/Qwen3-8B": _qwen3(4096, 12288, 36, 32, tied=False),
}
_SPARE_ROWS = ("qwen3",)
"""Their embedding matrix has rows to spare, which `<image>` and a padding token then use."""


def tower(hub_id: str) -> SimpleNamespace | None:
    """The published configuration of a tower, or None."""
    known = TOWERS.get(hub_id)
    return None if known is None else SimpleNamespace(**{"model_type": "clip_vision_model", **known})


def language_model(hub_id: str) -> SimpleNamespace | None:
    """The published configuration of a language model once `<image>` and a padding token are in, or None."""
    known = LANGUAGE_MODELS.get(hub_id)
    if known is None:
        return None
    config = SimpleNamespace(**{"model_type": "llama", "tie_word_embeddings": False, **known})
    if config.model_type not in _SPARE_ROWS:
        config.vocab_size = rows_with_image_token(config.vocab_size)
    return config


def published_shape(recipe: ModelRecipe) -> Shape | None:
    """The sizes of a recipe's model where both its parts are in these tables; None where one is not."""
    vision, text = tower(recipe.vision_tower), language_model(recipe.language_model)
    return None if vision is None or text is None else joined_shape(recipe, vision, text)


def joined_shape(recipe: ModelRecipe, vision: Any, text: Any) -> Shape:
    """The sizes of a recipe's model, given the configurations of its parts."""
    config = SimpleNamespace(
        vision_config=vision,
        text_config=text,
        vision_feature_layer=recipe.vision_feature_layer,
        vision_feature_select_strategy=recipe.vision_feature_select_strategy,
    )
    if recipe.architecture == "llava_next":
        config.image_grid_pinpoints = recipe.image_grid_pinpoints
    return Shape.of(config, recipe.projector)


def rows_with_image_token(vocabulary: int) -> int:
    """Rows of the embedding matrix once `<image>` and a padding token are behind a vocabulary."""
    return -(-(vocabulary + 2) // ROUND_ROWS_TO) * ROUND_ROWS_TO
