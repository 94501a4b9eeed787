"""Preprocessing on the device: within the stated tolerance of the saved processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llava.data.device_preprocess import TOLERANCE, DevicePreprocessor
from llava.data.preprocess import Preprocessor
from llava.errors import SettingsError
from tests.data.test_preprocess import next_processor, picture
from tests.data.tokenizers_for_tests import make_processor, make_tokenizer


def levels_apart(processor: Any, width: int, height: int, seed: int, device: str = "cpu") -> np.ndarray:
    """Difference of the two ways in levels of 255, before normalisation."""
    image = picture(width, height, seed=seed)
    preprocessor = Preprocessor.from_processor(processor)
    assert preprocessor.settings is not None
    expected = processor.image_processor(image, return_tensors="np")["pixel_values"]
    found = DevicePreprocessor(preprocessor.settings, device)([np.asarray(image)]).cpu().numpy()
    assert found.shape == expected.shape
    std = np.array(preprocessor.settings.std)[:, None, None]
    return np.asarray(np.abs(found - expected) * std * 255)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(
    width=st.integers(2, 160),
    height=st.integers(2, 160),
    pad=st.booleans(),
    side=st.sampled_from([12, 24, 36]),
    resample=st.sampled_from([2, 3]),
    seed=st.integers(0, 3),
)
@example(width=30, height=160, pad=False, side=24, resample=3, seed=0)
@example(width=160, height=30, pad=False, side=24, resample=3, seed=0)
@example(width=10, height=160, pad=False, side=24, resample=3, seed=0)
def test_no_pixel_is_further_off_than_stated(
    width: int, height: int, pad: bool, side: int, resample: int, seed: int
) -> None:
    processor = make_processor(make_tokenizer("llama"), "", pad=pad, side=side)
    processor.image_processor.resample = resample
    assert levels_apart(processor, width, height, seed).max() <= TOLERANCE + 1e-3


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (500, 333), (336, 336)])
def test_hardly_a_pixel_differs_at_the_published_size(pad: bool, size: tuple[int, int]) -> None:
    apart = levels_apart(make_processor(make_tokenizer("llama"), "", pad=pad, side=336), *size, seed=0)
    assert apart.max() <= TOLERANCE + 1e-3
    assert (apart > 0.5).mean() < 0.01


def test_images_of_any_sizes_make_one_tensor_of_the_type_asked_for() -> None:
    found = Preprocessor.from_processor(make_processor(make_tokenizer("llama"), "")).settings
    device = DevicePreprocessor(found, dtype=torch.bfloat16)
    pixels = device([np.asarray(picture(30, 20)), np.asarray(picture(24, 24)), np.asarray(picture(9, 50))])
    assert (pixels.shape, pixels.dtype) == ((3, 3, 24, 24), torch.bfloat16)


def test_settings_it_does_not_cover_are_refused() -> None:
    other_filter, other_crop = (make_processor(make_tokenizer("llama"), "", pad=False) for _ in range(2))
    other_filter.image_processor.resample = 1
    other_crop.image_processor.size = {"shortest_edge": 30}
    for other in (other_filter, other_crop, next_processor()):
        with pytest.raises(SettingsError, match="does not cover"):
            DevicePreprocessor(Preprocessor.from_processor(other).settings)


@pytest.mark.parametrize("pad", [True, False])
def test_an_image_the_host_has_resized_is_left_as_it_is(pad: bool) -> None:
    processor = make_processor(make_tokenizer("llama"), "", pad=pad, side=24)
    preprocessor = Preprocessor.from_processor(processor)
    image = picture(90, 70, seed=3)
    found = DevicePreprocessor(preprocessor.settings)([preprocessor.resized(image)])
    assert np.array_equal(found.numpy(), preprocessor.pixels(image))


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("size", [(64, 48), (48, 64), (20, 90), (7, 9)])
def test_the_device_is_asked_for_nothing(pad: bool, size: tuple[int, int]) -> None:
    """Meta tensors have no values: whatever asked for one, and so made the host wait for a GPU, would raise."""
    settings = Preprocessor.from_processor(make_processor(make_tokenizer("llama"), "", pad=pad, side=24)).settings
    pixels = DevicePreprocessor(settings, "meta")([torch.empty((*size, 3), dtype=torch.uint8, device="meta")])
    assert (pixels.is_meta, pixels.shape) == (True, (1, 3, 24, 24))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("pad", [True, False])
def test_a_gpu_is_not_waited_for_when_the_memory_is_page_locked(pad: bool) -> None:
    settings = Preprocessor.from_processor(make_processor(make_tokenizer("llama"), "", pad=pad, side=24)).settings
    device = DevicePreprocessor(settings, "cuda")
    image = torch.from_numpy(np.array(picture(64, 48))).pin_memory()
    torch.cuda.set_sync_debug_mode("error")
    try:
        device([image])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_the_tolerance_holds_on_a_gpu() -> None:
    processor = make_processor(make_tokenizer("llama"), "", side=336)
    for size in [(640, 480), (480, 640), (100, 333)]:
        assert levels_apart(processor, *size, seed=1, device="cuda").max() <= TOLERANCE + 1e-3
