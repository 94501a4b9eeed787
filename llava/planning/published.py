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

TOWERS: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14": {**_CLIP_L, "image_size": 224},
    "openai/clip-vit-large-patch14-336": {**_CLIP_L, "image_size": 336},
}
LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "lmsys/vicuna-7b-v1.3": {**_VICUNA_7B, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6},
    "lmsys/vicuna-7b-v1.5": _VICUNA_7B,
    "lmsys/vicuna-13b-v1.5": _VICUNA_13B,
}


def published_shape(recipe: ModelRecipe) -> Shape | None:
    """The sizes of a recipe's model where both its parts are in these tables; None where one is not."""
    tower, text = TOWERS.get(recipe.vision_tower), LANGUAGE_MODELS.get(recipe.language_model)
    if tower is None or text is None:
        return None
    config = SimpleNamespace(
        vision_config=SimpleNamespace(**tower),
        text_config=SimpleNamespace(
            **{**text, "vocab_size": rows_with_image_token(text["vocab_size"]), "tie_word_embeddings": False}
        ),
        vision_feature_layer=recipe.vision_feature_layer,
        vision_feature_select_strategy=recipe.vision_feature_select_strategy,
    )
    if recipe.architecture == "llava_next":
        config.image_grid_pinpoints = recipe.image_grid_pinpoints
    return Shape.of(config, recipe.projector)


def rows_with_image_token(vocabulary: int) -> int:
    """Rows of the embedding matrix once `<image>` and a padding token are behind a vocabulary."""
    return -(-(vocabulary + 2) // ROUND_ROWS_TO) * ROUND_ROWS_TO
