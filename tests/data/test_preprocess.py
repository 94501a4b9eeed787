"""Pixels and visual tokens: bit for bit those of the saved processor."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llava.data.images import decode
from llava.data.preprocess import Preprocessor
from llava.errors import SettingsError
from tests.data.tokenizers_for_tests import make_processor, make_tokenizer


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Noise over a gradient, so that every resampling weight shows."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3)
    pixels = (ramp + random.integers(0, 256, (height, width, 3))) % 256
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


SIZES = [
    (24, 24),
    (25, 24),
    (24, 25),
    (1, 1),
    (1, 40),
    (40, 1),
    (17, 23),
    (23, 17),
    (64, 48),
    (48, 64),
    (333, 200),
    (7, 9),
]


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_pixels_equal_the_processors(pad: bool, size: tuple[int, int]) -> None:
    processor = make_processor(make_tokenizer("llama"), "", pad=pad)
    image = picture(*size)
    expected = processor.image_processor(image, return_tensors="np")["pixel_values"]
    found = Preprocessor.from_processor(processor).pixels(image)
    assert found.dtype == np.float32
    assert found.shape == (1, 3, 24, 24)
    assert np.array_equal(found, expected)


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(1, 120),
    height=st.integers(1, 120),
    pad=st.booleans(),
    side=st.sampled_from([12, 24, 36]),
    crop=st.sampled_from([12, 24, 36]),
    resample=st.sampled_from([0, 2, 3]),
)
def test_pixels_equal_the_processors_over_settings(
    width: int, height: int, pad: bool, side: int, crop: int, resample: int
) -> None:
    processor = make_processor(make_tokenizer("llama"), "", pad=pad)
    processor.image_processor.size = {"shortest_edge": side}
    processor.image_processor.crop_size = {"height": crop, "width": crop}
    processor.image_processor.resample = resample
    processor.image_processor.image_mean = [0.5, 0.25, 0.1]
    image = picture(width, height)
    expected = processor.image_processor(image, return_tensors="np")["pixel_values"]
    assert np.array_equal(Preprocessor.from_processor(processor).pixels(image), expected)


@pytest.mark.parametrize("option", ["do_resize", "do_normalize", "do_center_crop", "do_rescale"])
def test_unusual_settings_go_through_the_processor_itself(option: str) -> None:
    processor = make_processor(make_tokenizer("llama"), "")
    setattr(processor.image_processor, option, False)
    image = picture(30, 24)
    expected = processor.image_processor(image, return_tensors="np")["pixel_values"]
    assert np.array_equal(Preprocessor.from_processor(processor).pixels(image), expected)


def encoded(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def transparent_palette() -> bytes:
    buffer = io.BytesIO()
    picture(30, 20, "P").save(buffer, "GIF", transparency=3)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        encoded(picture(30, 20), "JPEG"),
        encoded(picture(30, 20, "L"), "JPEG"),
        encoded(picture(30, 20, "CMYK"), "JPEG"),
        encoded(picture(30, 20, "RGBA"), "PNG"),
        encoded(picture(30, 20, "LA"), "PNG"),
        encoded(picture(30, 20, "P"), "PNG"),
        encoded(picture(30, 20, "1"), "PNG"),
        encoded(picture(30, 20), "WEBP"),
        encoded(picture(30, 20), "BMP"),
        transparent_palette(),
    ],
)
def test_every_kind_of_file_gives_the_processors_pixels(data: bytes) -> None:
    processor = make_processor(make_tokenizer("llama"), "")
    expected = processor.image_processor(Image.open(io.BytesIO(data)), return_tensors="np")["pixel_values"]
    assert np.array_equal(Preprocessor.from_processor(processor).pixels(decode(data, "x")), expected)


def test_an_image_of_the_target_size_is_not_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessor = Preprocessor.from_processor(make_processor(make_tokenizer("llama"), ""))
    image = picture(24, 24)

    def resize(*_: Any, **__: Any) -> None:
        raise AssertionError("resized")

    monkeypatch.setattr(Image.Image, "resize", resize)
    assert preprocessor.pixels(image).shape == (1, 3, 24, 24)


def next_processor() -> Any:
    from transformers import LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    image_processor = LlavaNextImageProcessorPil(
        image_grid_pinpoints=[[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]],
        size={"shortest_edge": 24},
        crop_size={"height": 24, "width": 24},
    )
    return LlavaNextProcessor(
        image_processor=image_processor,
        tokenizer=make_tokenizer("llama"),
        patch_size=12,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="",
    )


@pytest.mark.parametrize("size", SIZES)
def test_tiles_and_their_tokens_equal_the_next_processors(size: tuple[int, int]) -> None:
    processor = next_processor()
    preprocessor = Preprocessor.from_processor(processor)
    image = picture(*size)
    out = processor(text="<image>", images=image, return_tensors="np", do_pad=False)
    found = preprocessor.pixels(image)
    assert np.array_equal(found, np.asarray(out["pixel_values"][0]))
    assert preprocessor.tile_count(*size) == len(found)
    tokens = int((out["input_ids"] == processor.image_token_id).sum())
    assert preprocessor.visual_tokens(*size) == tokens
    assert preprocessor.constant_visual_tokens is None


@pytest.mark.parametrize("size", SIZES)
def test_visual_tokens_equal_the_processors(size: tuple[int, int]) -> None:
    processor = make_processor(make_tokenizer("llama"), "", side=36)
    out = processor(text="<image>", images=picture(*size), return_tensors="np")
    preprocessor = Preprocessor.from_processor(processor)
    assert preprocessor.visual_tokens(*size) == int((out["input_ids"] == processor.image_token_id).sum()) == 9
    assert preprocessor.constant_visual_tokens == 9


def test_another_processor_is_refused() -> None:
    with pytest.raises(SettingsError, match="found list; expected LlavaProcessor"):
        Preprocessor.from_processor([])
