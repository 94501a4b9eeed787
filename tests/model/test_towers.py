"""SigLIP and DINOv2 beside CLIP: features, tokens, pixels and keys as transformers' own classes have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from llava.config import ModelRecipe
from llava.data.preprocess import Preprocessor
from llava.errors import SettingsError
from llava.model import build, freezing, saving, special_tokens
from llava.model.features import tower_features
from llava.model.forward import supervised_logits
from llava.planning.shape import Shape
from tests.model.batches import make_row, packed, padded
from tests.model.conftest import TEMPLATE
from tests.model.tiny_parts import PATCH, SIDE, write_dinov2, write_siglip

Built = Callable[..., tuple[Any, Any]]
PATCHES = (SIDE // PATCH) ** 2
TOWERS = ("siglip", "dinov2")


@pytest.fixture(scope="module")
def tower_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        "siglip": write_siglip(tmp_path_factory.mktemp("siglip")),
        "dinov2": write_dinov2(tmp_path_factory.mktemp("dinov2")),
    }


@pytest.fixture(scope="module")
def llava(tower_dirs: dict[str, Path], built: Built) -> Callable[..., tuple[Any, Any]]:
    return lambda tower, **fields: built(vision_tower=str(tower_dirs[tower]), **fields)


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("layer", [-2, -1, 1])
def test_features_are_the_towers_own_hidden_states(
    tower: str, layer: int, llava: Built, tower_dirs: dict[str, Path]
) -> None:
    """Against the whole model as transformers loads it; one patch more or less would show in the shape."""
    from transformers import AutoModel

    model, _ = llava(tower, vision_feature_layer=layer)
    stock = AutoModel.from_pretrained(tower_dirs[tower])
    stock = getattr(stock, "vision_model", stock).eval()
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        hidden_IPE = stock(pixels, output_hidden_states=True).hidden_states[layer]
        ours_IPE = tower_features(model, pixels)
    expected = hidden_IPE[:, 1:] if tower == "dinov2" else hidden_IPE
    assert ours_IPE.shape == (2, PATCHES, 32)
    torch.testing.assert_close(ours_IPE, expected)


@pytest.mark.parametrize("strategy", ["default", "full"])
@pytest.mark.parametrize("tower", TOWERS)
def test_saved_and_loaded_by_stock_code_alone(tower: str, strategy: Any, llava: Built, tmp_path: Path) -> None:
    """transformers' own forward and processor on what was saved, beside ours: the same logits and tokens."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model, processor = llava(tower, vision_feature_select_strategy=strategy)
    tokens = PATCHES + (tower == "dinov2" and strategy == "full")
    assert model.config.image_seq_length == tokens
    saving.save_model(model, processor, str(tmp_path))
    stock, report = LlavaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    served = AutoProcessor.from_pretrained(tmp_path)
    image = Image.effect_noise((70, 50), 90).convert("RGB")
    inputs = served(text="a <image> b c", images=image, return_tensors="pt")
    assert int((inputs.input_ids == model.config.image_token_index).sum()) == tokens
    ids = inputs.input_ids[0].tolist()
    row = make_row(model, text=4)
    row.ids, row.answer, row.pixels = ids, len(ids) - 2, [inputs.pixel_values[0]]
    with torch.no_grad():
        expected = stock(**inputs).logits[0, -3:-1]
        for batch in (padded([row]), packed([row])):
            torch.testing.assert_close(supervised_logits(model, batch), expected)
        torch.testing.assert_close(supervised_logits(saving.load_model(str(tmp_path)), packed([row])), expected)


def test_keys_are_those_that_other_engines_read(llava: Built, tmp_path: Path) -> None:
    """SigLIP's as in llava-hf/llava-interleave-qwen-0.5b-hf (no pooling head); DINOv2's as its own model has them."""
    expected = {
        "siglip": ("vision_tower.vision_model.embeddings.position_embedding.weight", "vision_tower.vision_model."),
        "dinov2": ("vision_tower.embeddings.cls_token", "vision_tower."),
    }
    for tower, (one, prefix) in expected.items():
        saving.save_model(*llava(tower), str(tmp_path / tower))
        with safe_open(tmp_path / tower / "model.safetensors", "pt") as file:
            keys = [key for key in file.keys() if key.startswith("vision_tower.")]  # noqa: SIM118
        assert one in keys
        assert all(key.startswith(prefix) for key in keys)
        assert not [key for key in keys if ".head." in key]


@pytest.mark.parametrize("aspect", ["pad", "crop", "resize"])
@pytest.mark.parametrize("tower", TOWERS)
def test_pixels_are_the_saved_processors(
    tower: str, aspect: Any, tower_dirs: dict[str, Path], recipe_of: Callable[..., ModelRecipe], tmp_path: Path
) -> None:
    from transformers import AutoProcessor

    build.build_processor(recipe_of(vision_tower=str(tower_dirs[tower])), TEMPLATE, aspect).save_pretrained(tmp_path)
    served = AutoProcessor.from_pretrained(tmp_path)
    ours = Preprocessor.from_processor(served)
    assert ours.settings is not None
    rng = np.random.default_rng(0)
    for size in ((70, 50), (48, 48), (31, 90)):
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        expected = served(text="<image>", images=image, return_tensors="np")
        assert np.array_equal(ours.pixels(image), expected["pixel_values"])
        assert ours.visual_tokens(*image.size) == int((expected["input_ids"] == served.image_token_id).sum()) == PATCHES


def test_a_siglip_resized_sees_what_its_own_processor_shows_it(
    tower_dirs: dict[str, Path], recipe_of: Callable[..., ModelRecipe]
) -> None:
    from transformers import SiglipImageProcessorPil

    processor = build.build_processor(recipe_of(vision_tower=str(tower_dirs["siglip"])), TEMPLATE, "resize")
    own = SiglipImageProcessorPil.from_pretrained(tower_dirs["siglip"])
    image = Image.effect_noise((70, 50), 90).convert("RGB")
    ours = Preprocessor.from_processor(processor).pixels(image)
    assert np.array_equal(ours, own(image, return_tensors="np")["pixel_values"])


@pytest.mark.parametrize("tower", TOWERS)
def test_a_trained_tower_moves_where_gradients_reach_and_nowhere_else(tower: str, llava: Built) -> None:
    model, _ = llava(tower)
    freezing.set_trainable(model, "finetune", train_tower=True)
    row = make_row(model, text=6)
    supervised_logits(model.train(), packed([row])).sum().backward()
    named = list(model.model.vision_tower.named_parameters())
    with_gradient = {name for name, p in named if p.grad is not None}
    assert with_gradient == {name for name, p in named if p.requires_grad}
    assert len(with_gradient) > 30
    assert not [name for name in with_gradient if "layers.2." in name or "layer.2." in name]


@pytest.mark.parametrize("tower", TOWERS)
def test_counts_of_the_plan_are_the_models(tower: str, llava: Built, recipe_of: Any, tower_dirs: Any) -> None:
    recipe = recipe_of(vision_tower=str(tower_dirs[tower]))
    model = build.build_model(recipe, tokenizer=special_tokens.load_tokenizer(recipe.language_model), meta=True)
    shape = Shape.of(model.config, recipe.projector)
    assert shape.tower_parameters == sum(p.numel() for p in model.model.vision_tower.parameters())
    assert shape.visual_tokens == PATCHES


def test_anyres_tiles_of_a_siglip_equal_the_stock_class(llava: Built, tmp_path: Path) -> None:
    from transformers import AutoProcessor, LlavaNextForConditionalGeneration

    from llava.model.features import image_features

    model, processor = llava("siglip", architecture="llava_next")
    saving.save_model(model, processor, str(tmp_path))
    stock = LlavaNextForConditionalGeneration.from_pretrained(tmp_path).eval()
    inputs = AutoProcessor.from_pretrained(tmp_path)(
        text="<image>", images=Image.effect_noise((70, 50), 90).convert("RGB"), return_tensors="pt"
    )
    with torch.no_grad():
        expected = stock.get_image_features(inputs.pixel_values, inputs.image_sizes).pooler_output[0]
        ours = image_features(model, inputs.pixel_values[0], inputs.image_sizes)[0]
    torch.testing.assert_close(ours, expected)
    assert int((inputs.input_ids == model.config.image_token_index).sum()) == len(ours)


def test_a_bare_siglip_tower_serves(tmp_path: Path, built: Built, llava: Built) -> None:
    bare, processor = built(vision_tower=str(write_siglip(tmp_path, whole=False)))
    whole, _ = llava("siglip")
    assert all(torch.equal(a, b) for a, b in zip(bare.state_dict().values(), whole.state_dict().values(), strict=True))
    assert processor.image_processor.image_mean == (0.5, 0.5, 0.5)
    assert processor.image_processor.resample == 2


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "siglip2"}, "variable resolution .NaFlex."),
        ({"model_type": "dinov2_with_registers"}, "DINOv2 with registers"),
        ({"model_type": "vit"}, "expected a CLIP, a SigLIP or SigLIP 2 of fixed resolution, or a DINOv2"),
        ({"model_type": "dinov2", "image_size": [48, 96]}, r"image_size: found \[48, 96\]; expected one number"),
    ],
)
def test_what_cannot_be_a_tower_is_refused(config: dict[str, Any], said: str, built: Built, tmp_path: Path) -> None:
    import json

    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SettingsError, match=said):
        built(vision_tower=str(tmp_path))
