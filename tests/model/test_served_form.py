"""A saved model has what manifests/serving/vllm.yaml's server looks for.

vLLM picks the model by `architectures` (vllm/model_executor/models/registry.py), reads the fields below from the
configuration (models/llava.py), takes the processor from Transformers' files, and answers chat by the template beside
them (entrypoints/chat_utils.py); it runs none of our code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from llava.config import ModelRecipe
from llava.data.templates import get_template
from llava.model import saving


def test_vllm_finds_model_processor_and_chat_template(recipe_of: Callable[..., ModelRecipe], tmp_path: Path) -> None:
    from transformers import AutoProcessor

    from llava.model.build import build_model
    from llava.model.processor import build_processor
    from llava.model.special_tokens import load_tokenizer

    recipe = recipe_of("llama")
    processor = build_processor(recipe, get_template("v1").bound(load_tokenizer(recipe.language_model)), "pad")
    saving.save_model(build_model(recipe, tokenizer=processor.tokenizer), processor, str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LlavaForConditionalGeneration"] and "auto_map" not in config
    assert config["vision_config"]["model_type"] == "clip_vision_model"
    assert config["projector_hidden_act"] == "gelu"
    assert config["vision_feature_select_strategy"] == "default" and config["vision_feature_layer"] == -2
    assert config.get("image_token_index", config.get("image_token_id")) is not None
    processor = AutoProcessor.from_pretrained(tmp_path)
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    assert prompt.count("<image>") == 1 and "What is it?" in prompt and prompt.rstrip().endswith("ASSISTANT:")
