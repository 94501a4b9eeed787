"""The exported folder as others read it: transformers.js with its tokenizer and onnxruntime, stock transformers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llava.stages.export import Inputs, Outputs, Settings, run
from tests.conftest import TinyWorld  # noqa: F401  (its fixtures make the model)
from tests.hub_model import HubModel, hub_model

__all__ = ["hub_model"]
HERE = Path(__file__).parent / "consumer"
MESSAGES = [
    {"role": "user", "content": "<image>\nWhat is in the picture?"},
    {"role": "assistant", "content": "A thing."},
    {"role": "user", "content": "Where?"},
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(hub_model: HubModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("consumed")
    places = Outputs(onnx=f"{folder}/onnx", report=f"{folder}/report.html", metrics=f"{folder}/metrics")
    run(Settings(), Inputs(model=str(hub_model.model)), places)
    return folder / "onnx"


def consumed(folder: Path, image: Image.Image, scratch: Path) -> dict[str, Any]:
    """What transformers.js makes of a folder, an image and `MESSAGES`."""
    if not (HERE / "node_modules/@huggingface/transformers").is_dir() or shutil.which("node") is None:
        pytest.skip("no transformers.js here: make consumers")
    image.save(scratch / "image.png")
    (scratch / "messages.json").write_text(json.dumps(MESSAGES))
    command = [
        "node",
        str(HERE / "consume.mjs"),
        str(folder),
        str(scratch / "image.png"),
        str(scratch / "messages.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "not found" not in done.stderr and "Unknown" not in done.stderr, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def stock(model: Path, image: Image.Image) -> tuple[Any, str, list[int], Any]:
    """Pixels, prompt, ids and features of stock transformers on the model itself."""
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor = AutoProcessor.from_pretrained(model)
    prompt = processor.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    loaded = LlavaForConditionalGeneration.from_pretrained(model).eval()
    with torch.no_grad():
        features = loaded.get_image_features(pixel_values=inputs["pixel_values"])
    first = features[0] if isinstance(features, (list, tuple)) else features.pooler_output[0]
    return inputs["pixel_values"].numpy(), prompt, inputs["input_ids"][0].tolist(), first.numpy()


@pytest.mark.parametrize("size", [(48, 48), (48, 31), (20, 48)])
def test_transformers_js_makes_our_pixels_prompt_ids_and_features(
    exported: Path, hub_model: HubModel, tmp_path: Path, size: tuple[int, int]
) -> None:
    """An image that only has to be padded: nothing is interpolated, so everything is equal."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    found = consumed(exported, image, tmp_path)
    pixels, prompt, ids, features = stock(hub_model.model, image)
    assert found["class"] == "LlavaProcessor" and found["image_class"] == "CLIPImageProcessor"
    assert found["prompt"] == prompt and found["ids"] == ids
    assert found["dims"] == list(pixels.shape)
    assert np.abs(np.array(found["pixels"], np.float32) - pixels.ravel()).max() < 1e-5
    scale = float(np.sqrt((features**2).mean()))
    for name, limit in (("vision_encoder", 1e-4), ("vision_encoder_fp16", 0.02), ("vision_encoder_int8", 0.3)):
        gap = np.abs(np.array(found["features"][name], np.float32) - features.ravel()).max() / scale
        assert gap < limit, (name, gap)


def test_an_image_that_is_scaled_differs_by_the_scaler_alone(
    exported: Path, hub_model: HubModel, tmp_path: Path
) -> None:
    """libvips' bicubic, which transformers.js scales with, is some levels from Pillow's."""
    ramp = np.linspace(0, 255, 200, dtype=np.float32)
    smooth = np.stack([np.add.outer(ramp[:150], ramp) / 2, *[np.tile(ramp, (150, 1))] * 2], axis=-1).astype(np.uint8)
    image = Image.fromarray(smooth)
    found = consumed(exported, image, tmp_path)
    pixels = stock(hub_model.model, image)[0]
    spread = json.loads((exported / "preprocessor_config.json").read_text())["image_std"]
    levels = np.abs(np.array(found["pixels"], np.float32).reshape(pixels.shape) - pixels)
    levels *= np.array(spread, np.float32).reshape(1, 3, 1, 1) * 255
    assert levels.mean() < 2.5 and levels.max() < 16, (levels.mean(), levels.max())


def test_the_model_folder_has_its_template_where_older_readers_look(hub_model: HubModel, exported: Path) -> None:
    template = (hub_model.model / "chat_template.jinja").read_text()
    for folder in (hub_model.model, exported):
        assert json.loads((folder / "tokenizer_config.json").read_text())["chat_template"] == template, folder


def test_stock_transformers_pads_and_counts_as_before(exported: Path, hub_model: HubModel) -> None:
    """The class that others know is for others: transformers reads the processor whole."""
    from transformers import AutoProcessor

    image = Image.effect_noise((90, 40), 80).convert("RGB")
    ours = AutoProcessor.from_pretrained(hub_model.model).image_processor(image, return_tensors="np")["pixel_values"]
    theirs = AutoProcessor.from_pretrained(exported).image_processor(image, return_tensors="np")["pixel_values"]
    assert np.array_equal(ours, theirs)
    one, other = (
        AutoProcessor.from_pretrained(folder)(text="<image>\nWhat?", images=image)["input_ids"]
        for folder in (hub_model.model, exported)
    )
    assert one == other


def test_the_page_shows_the_padding_that_was_tried() -> None:
    page = (Path(__file__).parents[2] / "docs/evaluation.md").read_text()
    assert (HERE / "padding.mjs").read_text() in page
