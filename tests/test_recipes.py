"""The recipes that come with the project: each validates, says what was published, builds on the meta device, plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llava.config import Recipe, bundled_recipes, load_recipe
from llava.planning.corpora import default_corpus
from llava.planning.flops import Stage
from llava.planning.gpus import gpu_named
from llava.planning.shape import Shape
from llava.planning.stage_plan import plan_stage, shape_of
from tests.planning.published import CONFIGS, write_hub_directory

RECIPES = sorted(bundled_recipes())
PUBLISHED = [name for name in RECIPES if name.startswith("llava-v")]

OF_TODAY = [name for name in RECIPES if name not in PUBLISHED and name != "tiny"]


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hub")
    return {hub_id: write_hub_directory(folder, hub_id) for hub_id in CONFIGS}


def offline(name: str, hub: dict[str, Path]) -> Recipe:
    """The recipe with its hub ids pointing to directories that hold the published configurations."""
    recipe = load_recipe(name)
    parts = {f"model.{part}": str(hub[getattr(recipe.model, part)]) for part in ("vision_tower", "language_model")}
    return load_recipe(name, parts)


def test_all_are_there() -> None:
    assert PUBLISHED == [
        "llava-v1-7b",
        "llava-v1.5-13b",
        "llava-v1.5-13b-lora",
        "llava-v1.5-7b",
        "llava-v1.5-7b-lora",
        "llava-v1.6-7b",
    ]
    assert OF_TODAY == ["clip-llama3.1-8b", "siglip2-qwen3-0.6b", "siglip2-qwen3-4b", "siglip2-qwen3-8b"]
    assert "tiny" in RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_names_and_descriptions(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert len(recipe.description) > 20


# batch, learning rate, epochs, projector's rate: FACTS 5, from the papers and the published scripts.
VALUES = {
    "llava-v1.5-7b": ((256, 1e-3, 1, None), (128, 2e-5, 1, None)),
    "llava-v1.5-13b": ((256, 1e-3, 1, None), (128, 2e-5, 1, None)),
    "llava-v1.5-7b-lora": ((256, 1e-3, 1, None), (128, 2e-4, 1, 2e-5)),
    "llava-v1.5-13b-lora": ((256, 1e-3, 1, None), (128, 2e-4, 1, 2e-5)),
    "llava-v1-7b": ((128, 2e-3, 1, None), (32, 2e-5, 3, None)),
    "llava-v1.6-7b": ((256, 1e-3, 1, None), (128, 1e-5, 1, None)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name: str) -> None:
    recipe = load_recipe(name)
    for stage, expected in zip((recipe.pretrain, recipe.finetune), VALUES[name], strict=True):
        assert (stage.global_batch_size, stage.learning_rate, stage.epochs, stage.projector_learning_rate) == expected
        assert (stage.schedule, stage.warmup_ratio, stage.weight_decay, stage.max_grad_norm) == (
            "cosine",
            0.03,
            0.0,
            None,
        )
        assert stage.precision == "bf16"
        assert stage.max_steps is None
    assert recipe.pretrain.template == "plain"
    assert recipe.finetune.template == "v1"
    assert recipe.pretrain.lora is None
    lora = recipe.finetune.lora
    assert (lora is not None) == name.endswith("-lora")
    if lora is not None:
        assert (lora.r, lora.alpha, lora.dropout) == (128, 256, 0.05)
    assert recipe.model.projector == ("linear" if name == "llava-v1-7b" else "mlp2x_gelu")
    assert (recipe.model.vision_feature_layer, recipe.model.vision_feature_select_strategy) == (-2, "default")
    # Stage 1 crops, stage 2 of 1.5 pads (FACTS 4).
    assert recipe.pretrain.image_aspect_ratio == "crop"
    assert recipe.finetune.image_aspect_ratio == ("crop" if name == "llava-v1-7b" else "pad")


@pytest.mark.parametrize("name", PUBLISHED)
def test_builds_on_the_meta_device_with_hub_llavas_sizes(name: str, hub: dict[str, Path]) -> None:
    import torch

    from llava.model.build import build_model, build_processor

    recipe = offline(name, hub)
    processor = build_processor(recipe.model, "{{ messages }}", recipe.finetune.image_aspect_ratio)
    model = build_model(recipe.model, tokenizer=processor.tokenizer, dtype=torch.bfloat16, meta=True)
    expected = "LlavaNextForConditionalGeneration" if name == "llava-v1.6-7b" else "LlavaForConditionalGeneration"
    assert type(model).__name__ == expected
    # llava-hf/llava-1.5-7b-hf: <image> is 32000, padding 32001, 32064 rows, 576 visual tokens.
    assert model.config.image_token_index == 32000
    assert model.config.text_config.pad_token_id == 32001
    assert model.get_input_embeddings().weight.shape[0] == model.lm_head.weight.shape[0] == 32064
    assert model.config.image_seq_length == (256 if name == "llava-v1-7b" else 576)
    shape = Shape.of(model.config, recipe.model.projector)
    assert shape == shape_of(load_recipe(name).model), "the table of published sizes differs from the published files"
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert shape.language_parameters == count(model.model.language_model) + count(model.lm_head)
    assert shape.tower_parameters == count(model.model.vision_tower)
    newline = shape.width if shape.anyres else 0
    assert shape.projector_parameters == count(model.model.multi_modal_projector) + newline


# Rows of the embedding matrix, visual tokens, parameters in millions of language model, tower and projector: the
# first two as hub LLaVAs of these parts have them, the others from the models' cards and by hand for the projector
# (1152 or 1024 x d + d, d x d + d). The tower has no pooling head (15.2 of SigLIP's 428 million).
SIZES = {
    "clip-llama3.1-8b": (128_320, 576, 8_031, 303.5, 21.0),
    "siglip2-qwen3-0.6b": (151_936, 729, 596, 412.4, 2.2),
    "siglip2-qwen3-4b": (151_936, 729, 4_022, 412.4, 9.5),
    "siglip2-qwen3-8b": (151_936, 729, 8_191, 412.4, 21.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_TODAY)
def test_recipes_of_today_build_on_the_meta_device(name: str, hub: dict[str, Path]) -> None:
    import torch

    from llava.data.templates import get_template
    from llava.model.build import build_model, build_processor

    recipe = offline(name, hub)
    template = get_template(recipe.finetune.template)
    processor = build_processor(recipe.model, template, recipe.finetune.image_aspect_ratio)
    model = build_model(recipe.model, tokenizer=processor.tokenizer, dtype=torch.bfloat16, meta=True)
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    rows, visual, language, tower, joint = SIZES[name]
    assert model.get_input_embeddings().weight.shape[0] == model.lm_head.weight.shape[0] == rows
    assert model.config.image_seq_length == visual
    shape = Shape.of(model.config, recipe.model.projector)
    assert shape == shape_of(load_recipe(name).model)
    parts = (
        [*model.model.language_model.parameters(), *([] if shape.tied else model.lm_head.parameters())],
        [*model.model.vision_tower.parameters()],
        [*model.model.multi_modal_projector.parameters()],
    )
    counts = [sum(parameter.numel() for parameter in part) for part in parts]
    assert counts == [shape.language_parameters, shape.tower_parameters, shape.projector_parameters]
    assert [count / 1e6 for count in counts] == pytest.approx([language, tower, joint], rel=0.005, abs=0.05)


@pytest.mark.parametrize("name", [*PUBLISHED, *OF_TODAY])
def test_fits_its_eight_gpus(name: str) -> None:
    """The recipes say they are laid out for 8 GPUs of 80 GB: then they must plan without a warning there."""
    recipe = load_recipe(name)
    shape = shape_of(recipe.model)
    stages: tuple[Stage, ...] = ("pretrain", "finetune")
    for stage in stages:
        corpus = default_corpus(name, stage)
        plan = plan_stage(recipe, stage, shape, corpus, gpu=gpu_named("a100"), gpus=8, mfu=0.4, price=2.5)
        assert plan.fits, plan.memory
        assert not plan.warnings
        assert 0.1 < plan.hours < 100


def test_planning_reads_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in [*PUBLISHED, *OF_TODAY]:
        shape_of(load_recipe(name).model)
