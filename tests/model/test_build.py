"""Building: any CLIP and language model, hub-like tokens, exact weights, determinism, errors people can act on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.config import ModelRecipe
from llava.errors import SettingsError, StorageError
from llava.model import build, special_tokens
from tests.model.conftest import FAMILIES, TEMPLATE

Built = Callable[..., tuple[Any, Any]]
RecipeOf = Callable[..., ModelRecipe]


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_keep_their_weights_and_the_class_is_stock(
    family: str, built: Built, tiny_clip_dir: Path, tiny_lm_dirs: dict[str, Path]
) -> None:
    from transformers import AutoModelForCausalLM, CLIPModel, LlavaForConditionalGeneration

    model, _ = built(family)
    assert type(model) is LlavaForConditionalGeneration
    for name, tensor in CLIPModel.from_pretrained(tiny_clip_dir).vision_model.state_dict().items():
        assert torch.equal(model.model.vision_tower.state_dict()[name], tensor), name
    base = AutoModelForCausalLM.from_pretrained(tiny_lm_dirs[family])
    rows = base.config.vocab_size
    for name, tensor in base.model.state_dict().items():
        assert torch.equal(model.model.language_model.state_dict()[name][: tensor.shape[0]], tensor), name
    assert torch.equal(model.lm_head.weight[:rows], base.lm_head.weight)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == base.config.tie_word_embeddings


def test_tokens_are_added_as_hub_llava_has_them(built: Built, tiny_llama_dir: Path) -> None:
    from transformers import AutoTokenizer

    model, processor = built()
    before = len(AutoTokenizer.from_pretrained(tiny_llama_dir))
    tokenizer = processor.tokenizer
    assert tokenizer.convert_tokens_to_ids("<image>") == before == model.config.image_token_index
    assert tokenizer.pad_token == "<pad>"
    assert (
        tokenizer.pad_token_id
        == before + 1
        == model.config.text_config.pad_token_id
        == model.generation_config.pad_token_id
    )
    assert model.config.text_config.vocab_size % 64 == 0
    assert (
        model.lm_head.weight.shape[0]
        == model.get_input_embeddings().weight.shape[0]
        == model.config.text_config.vocab_size
    )
    assert tokenizer("a<image>b", add_special_tokens=False).input_ids.count(before) == 1
    new_rows = model.get_input_embeddings().weight[before:]
    torch.testing.assert_close(new_rows, model.get_input_embeddings().weight[:before].mean(0).expand_as(new_rows))


def test_an_own_padding_token_is_kept(tmp_path: Path, tiny_llama_dir: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    special_tokens.add_tokens(tokenizer)
    special_tokens.add_tokens(tokenizer)  # twice changes nothing
    assert tokenizer.pad_token == "[PAD]"
    assert "<pad>" not in tokenizer.get_vocab()


def test_rows_that_exist_are_used_before_new_ones_are_made(built: Built) -> None:
    _, processor = built()
    needed = len(processor.tokenizer)
    assert special_tokens.rows_needed(processor.tokenizer, needed + 5) == needed + 5
    assert special_tokens.rows_needed(processor.tokenizer, needed - 1) == -(-needed // 64) * 64


def test_same_seed_same_model_other_seed_other_projector_only(recipe_of: RecipeOf) -> None:
    recipe = recipe_of()
    tokenizer = special_tokens.load_tokenizer(recipe.language_model)
    torch.manual_seed(123)
    first = build.build_model(recipe, tokenizer=tokenizer, seed=1).state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(123)
    assert torch.equal(torch.rand(1), drawn), "building must not use up the global random state"
    again = build.build_model(recipe, tokenizer=tokenizer, seed=1).state_dict()
    other = build.build_model(recipe, tokenizer=tokenizer, seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    changed = {name for name in first if not torch.equal(first[name], other[name])}
    assert changed == {name for name in first if "multi_modal_projector" in name}


@pytest.mark.parametrize(
    "fields", [{}, {"projector": "linear"}, {"projector": "mlp4x_gelu"}, {"architecture": "llava_next"}]
)
def test_meta_model_has_the_shapes_and_no_memory(fields: dict[str, Any], recipe_of: RecipeOf, built: Built) -> None:
    model, processor = built(**fields)
    meta = build.build_model(recipe_of(**fields), tokenizer=processor.tokenizer, meta=True)
    assert all(parameter.is_meta for parameter in meta.parameters())
    assert {n: p.shape for n, p in meta.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    assert meta.config.to_dict() == {
        **model.config.to_dict(),
        **{k: meta.config.to_dict()[k] for k in ("text_config", "vision_config")},
    }


def test_dtype(recipe_of: RecipeOf) -> None:
    recipe = recipe_of()
    model = build.build_model(
        recipe, tokenizer=special_tokens.load_tokenizer(recipe.language_model), dtype=torch.bfloat16
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_a_bare_vision_model_serves_as_tower(
    tmp_path: Path, recipe_of: RecipeOf, tiny_clip_dir: Path, built: Built
) -> None:
    from transformers import CLIPModel

    CLIPModel.from_pretrained(tiny_clip_dir).vision_model.save_pretrained(tmp_path / "tower")
    bare, processor = built(vision_tower=str(tmp_path / "tower"))
    whole, _ = built()
    assert all(torch.equal(a, b) for a, b in zip(bare.state_dict().values(), whole.state_dict().values(), strict=True))
    assert processor.image_processor.size["shortest_edge"] == 48, (
        "without a preprocessor file the tower's own size counts"
    )


@pytest.mark.parametrize(("width", "heads"), [(768, 12), (1024, 16)])
def test_tower_widths_of_the_published_clips(width: int, heads: int, tmp_path: Path, recipe_of: RecipeOf) -> None:
    from transformers import CLIPVisionConfig

    CLIPVisionConfig(hidden_size=width, num_attention_heads=heads).save_pretrained(tmp_path)
    recipe = recipe_of(vision_tower=str(tmp_path))
    meta = build.build_model(recipe, tokenizer=special_tokens.load_tokenizer(recipe.language_model), meta=True)
    assert meta.model.multi_modal_projector.linear_1.weight.shape == (48, width)


@pytest.mark.slow
def test_parts_come_from_object_storage(
    moto_s3: Any, recipe_of: RecipeOf, tiny_clip_dir: Path, tiny_lm_dirs: dict[str, Path], built: Built
) -> None:
    from llava import storage

    storage.upload(tiny_clip_dir, f"{moto_s3.uri}/base/clip")
    storage.upload(tiny_lm_dirs["llama"], f"{moto_s3.uri}/base/llama")
    remote, _ = built(vision_tower=f"{moto_s3.uri}/base/clip", language_model=f"{moto_s3.uri}/base/llama")
    local, _ = built()
    assert all(
        torch.equal(a, b) for a, b in zip(remote.state_dict().values(), local.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vision_tower": "no/such/folder"}, "model.vision_tower: found 'no/such/folder'; expected a directory"),
        ({"language_model": "no/such/folder"}, "model.language_model: found"),
        ({"projector": "identity"}, "the tower has 32, the language model 48"),
        ({"vision_feature_layer": -9}, r"the tower has 3 layers, so expected -3..-1 or 1..3"),
        ({"image_grid_pinpoints": [(96, 48)]}, "only architecture llava_next"),
        ({"architecture": "llava_next", "projector": "mlp3x_gelu"}, "model.projector: found mlp3x_gelu"),
    ],
)
def test_what_does_not_fit_is_said(fields: dict[str, Any], message: str, built: Built) -> None:
    with pytest.raises(SettingsError, match=message):
        built(**fields)


def test_swapped_parts_are_named(built: Built, tiny_clip_dir: Path, tiny_llama_dir: Path) -> None:
    with pytest.raises(SettingsError, match=r"model.vision_tower: .* is a 'llama'; expected a CLIP"):
        built(vision_tower=str(tiny_llama_dir))
    with pytest.raises(SettingsError, match="model.language_model"):
        built(language_model=str(tiny_clip_dir))


def test_a_missing_uri_is_a_storage_error(built: Built, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file or folder"):
        built(vision_tower=f"file://{tmp_path}/gone")


def test_truncated_weights_are_refused(tmp_path: Path, tiny_llama_dir: Path, built: Built) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    broken = tmp_path / "llama"
    shutil.copytree(tiny_llama_dir, broken)
    state = load_file(broken / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SettingsError, match=r"1 weights are missing.*layers.1.mlp.up_proj"):
        built(language_model=str(broken))


def test_no_template_and_none_in_the_tokenizer(recipe_of: RecipeOf) -> None:
    with pytest.raises(SettingsError, match="its tokenizer has no chat template; name one"):
        build.build_processor(recipe_of(), None, "pad")


@pytest.mark.parametrize(("aspect", "pads"), [("pad", True), ("crop", False)])
def test_processor_carries_what_serving_needs(aspect: Any, pads: bool, recipe_of: RecipeOf, tmp_path: Path) -> None:
    from PIL import Image
    from transformers import AutoProcessor

    build.build_processor(recipe_of(), TEMPLATE, aspect).save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert processor.image_processor.do_pad is pads
    assert processor.chat_template == TEMPLATE
    assert (processor.patch_size, processor.vision_feature_select_strategy) == (12, "default")
    out = processor(images=Image.new("RGB", (96, 48), "red"), text="<image>\nhello", return_tensors="pt")
    assert out.pixel_values.shape == (1, 3, 48, 48)
    assert int((out.input_ids == processor.image_token_id).sum()) == 16
    mean_colour = torch.tensor([int(x * 255) / 255 for x in processor.image_processor.image_mean])
    corner = out.pixel_values[0, :, 0, 0] * torch.tensor(processor.image_processor.image_std) + torch.tensor(
        processor.image_processor.image_mean
    )
    expected = mean_colour if pads else torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(corner, expected, atol=0.02, rtol=0)
