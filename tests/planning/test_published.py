"""The published shapes without transformers are those that its own configurations give."""

from __future__ import annotations

import subprocess
import sys

import pytest
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaNextConfig

from llava.config import bundled_recipes, load_recipe
from llava.planning import published
from llava.planning.shape import Shape


@pytest.mark.parametrize("name", [name for name in bundled_recipes() if name != "tiny"])
def test_shapes_are_those_of_transformers(name: str) -> None:
    recipe = load_recipe(name).model
    cls = LlavaNextConfig if recipe.architecture == "llava_next" else LlavaConfig
    text = LlamaConfig(**published.LANGUAGE_MODELS[recipe.language_model])
    text.vocab_size = 32064  # hub LLaVA-1.5: 32000, <image>, <pad>, rounded up to 64
    config = cls(
        vision_config=CLIPVisionConfig(**published.TOWERS[recipe.vision_tower]),
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
