"""The published shapes without transformers are those that its own configurations give."""

from __future__ import annotations

import subprocess
import sys

import pytest
from transformers import AutoConfig, LlavaConfig, LlavaNextConfig

from llava.config import bundled_recipes, load_recipe
from llava.planning import published
from llava.planning.shape import Shape


@pytest.mark.parametrize("name", [name for name in bundled_recipes() if name != "tiny"])
def test_shapes_are_those_of_transformers(name: str) -> None:
    recipe = load_recipe(name).model
    cls = LlavaNextConfig if recipe.architecture == "llava_next" else LlavaConfig
    known = {"model_type": "llama", **published.LANGUAGE_MODELS[recipe.language_model]}
    text = AutoConfig.for_model(**known)
    # hub LLaVA-1.5: 32000, <image>, <pad>, rounded up to 64; Llama 3's likewise; Qwen 3's matrix has rows to spare
    text.vocab_size = {"vicuna": 32064, "Llama-3": 128320, "Qwen3": 151936}[
        next(part for part in ("vicuna", "Llama-3", "Qwen3") if part in recipe.language_model)
    ]
    config = cls(
        vision_config=AutoConfig.for_model(
            **{"model_type": "clip_vision_model", **published.TOWERS[recipe.vision_tower]}
        ),
        text_config=text,
        vision_feature_layer=recipe.vision_feature_layer,
        vision_feature_select_strategy=recipe.vision_feature_select_strategy,
    )
    assert published.published_shape(recipe) == Shape.of(config, recipe.projector)


def test_a_model_that_is_not_in_the_tables_has_no_published_shape() -> None:
    assert published.published_shape(load_recipe("tiny").model) is None


def test_planning_a_published_recipe_imports_no_torch() -> None:
    code = (
        "import sys; from llava.config import load_recipe; from llava.planning import host, published\n"
        "published.published_shape(load_recipe('llava-v1.5-7b').model)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
