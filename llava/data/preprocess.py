"""Pixels as the saved image processor gives them, bit for bit, in two thirds of its time.

The processor goes through arrays of three layouts and four data types for one image. Here a Pillow image is padded,
resized and cropped as one, and rescaling and normalisation are a table of 256 values a channel, computed by the
processor's own formula. Equality is tested over sizes, modes and settings; anything these fast paths do not cover is
handed to the processor itself.

Shapes: N tiles (1 unless AnyRes), C channels, H height, W width.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llava.errors import SettingsError

if TYPE_CHECKING:
    from PIL import Image
    from transformers import LlavaNextProcessor, LlavaProcessor


MAX_DEVICE_PIXELS = 2**21
"""Larger images are resized on the host even where the device does it: some 30 bytes a pixel of device memory, which no
rehearsal could foresee."""


@dataclass(frozen=True)
class ImageSettings:
    """The processor's settings, as numbers.

    Attributes:
        pad: to a square with the mean colour, before resizing.
        shortest_edge: side after resizing; `square`: both sides.
        crop: (height, width) of the centre crop, or None.
    """

    pad: bool
    shortest_edge: int
    square: bool
    crop: tuple[int, int] | None
    resample: int
    rescale_factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def background(self) -> tuple[int, ...]:
        """The colour of the padding: the mean colour, cut to whole numbers as the processor does."""
        return tuple(int(value * 255) for value in self.mean)


class Preprocessor:
    """Images to pixel arrays and counts of visual tokens. Safe to call from threads. Make one with `from_processor`."""

    def __init__(self, processor: Any, settings: ImageSettings | None, *, tiles: bool) -> None:
        self.settings = settings
        self.tiles = tiles
        self.image_size = _output_side(processor.image_processor)
        self._processor = processor
        # Asking takes as long as tokenising half a row, and there are fewer sizes than images.
        self._visual_tokens = functools.lru_cache(maxsize=4096)(self._ask_for_visual_tokens)
        self._table_CV = None if settings is None else normalisation_table(settings)

    def fingerprint(self) -> str:
        """SHA-256 of the processor's settings: they decide how many visual tokens an image has."""
        settings = [self._processor.image_processor.to_json_string(), self.tiles, self.constant_visual_tokens]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    @classmethod
    def from_processor(cls, processor: LlavaProcessor | LlavaNextProcessor) -> Preprocessor:
        """Take over a whole processor's settings: the image processor's, and the patch size that counts tokens.

        Raises:
            SettingsError: it is neither LLaVA's nor LLaVA-NeXT's.
        """
        kind = type(processor).__name__
        if kind not in ("LlavaProcessor", "LlavaNextProcessor"):
            raise SettingsError(f"processor: found {kind}; expected LlavaProcessor or LlavaNextProcessor")
        tiles = kind == "LlavaNextProcessor"
        return cls(processor, None if tiles else _settings(processor.image_processor), tiles=tiles)

    def pixels(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """Normalised pixels (N, C, H, W) of an RGB image; N is 1 unless AnyRes."""
        if self.settings is None or self._table_CV is None or image.mode != "RGB":
            return self._by_processor(image)
        return self._normalise(self.resized(image))[None]

    def resized(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Padded, resized and cropped, (H, W, C), before normalisation. Not for AnyRes."""
        assert self.settings is not None
        settings = self.settings
        if settings.pad:
            image = _pad_and_resize(image, settings)
        else:
            size = _resized_size(image.width, image.height, settings)
            if size != image.size:
                image = image.resize(size, resample=settings.resample)
        pixels_HWC = np.asarray(image)
        return pixels_HWC if settings.crop is None else _center_crop(pixels_HWC, settings.crop)

    def visual_tokens(self, width: int, height: int) -> int:
        """Visual tokens of an image of this size in pixels, as the processor expands `<image>`."""
        return self._visual_tokens(width, height)

    def _ask_for_visual_tokens(self, width: int, height: int) -> int:
        data = self._processor._get_num_multimodal_tokens(image_sizes=[(height, width)])
        return int(data.num_image_tokens[0])

    @functools.cached_property
    def constant_visual_tokens(self) -> int | None:
        """The number for every image, or None where it depends on the image's size (AnyRes)."""
        return None if self.tiles else self.visual_tokens(self.image_size, self.image_size)

    def tile_count(self, width: int, height: int) -> int:
        """N of `pixels` for an image of this size."""
        if not self.tiles:
            return 1
        from transformers.image_processing_utils import select_best_resolution

        grid = self._processor.image_processor.image_grid_pinpoints
        rows, columns = select_best_resolution((height, width), grid)
        return 1 + (int(rows) // self.image_size) * (int(columns) // self.image_size)

    def _normalise(self, pixels_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        assert self._table_CV is not None
        height, width, channels = pixels_HWC.shape
        out_CHW = np.empty((channels, height, width), dtype=np.float32)
        for channel in range(channels):
            np.take(self._table_CV[channel], pixels_HWC[:, :, channel], out=out_CHW[channel], mode="clip")
        return out_CHW

    def _by_processor(self, image: Image.Image) -> npt.NDArray[np.float32]:
        pixels = self._processor.image_processor(image, return_tensors="np")["pixel_values"]
        array = np.asarray(pixels, dtype=np.float32)
        return array[0] if self.tiles else array


def normalisation_table(settings: ImageSettings) -> npt.NDArray[np.float32]:
    """Value of each of the 256 levels per channel, (C, 256): float64 rescaling cut to float32, then float32
    normalisation, which is the processor's arithmetic."""
    levels_V = (np.arange(256, dtype=np.float64) * settings.rescale_factor).astype(np.float32)
    mean_C = np.array(settings.mean, dtype=np.float32)
    std_C = np.array(settings.std, dtype=np.float32)
    table_CV: npt.NDArray[np.float32] = ((levels_V[:, None] - mean_C) / std_C).T
    return np.ascontiguousarray(table_CV)


def _settings(image_processor: Any) -> ImageSettings | None:
    size, crop = image_processor.size, image_processor.crop_size
    edge, height, width = (_get(size, name) for name in ("shortest_edge", "height", "width"))
    plain = (
        image_processor.do_resize
        and image_processor.do_rescale
        and image_processor.do_normalize
        and image_processor.do_convert_rgb
        and not _get(size, "longest_edge")
        and (edge or height == width)
        and type(image_processor).__name__ in ("LlavaImageProcessorPil", "CLIPImageProcessorPil")
    )
    pads = bool(getattr(image_processor, "do_pad", False))
    if not plain or (pads and "Llava" not in type(image_processor).__name__):
        return None
    return ImageSettings(
        pad=pads,
        shortest_edge=int(edge or height),
        square=not edge,
        crop=(int(_get(crop, "height")), int(_get(crop, "width"))) if image_processor.do_center_crop else None,
        resample=int(image_processor.resample),
        rescale_factor=float(image_processor.rescale_factor),
        mean=tuple(float(value) for value in image_processor.image_mean),
        std=tuple(float(value) for value in image_processor.image_std),
    )


def _get(size: Any, name: str) -> Any:
    return size.get(name) if isinstance(size, dict) else getattr(size, name, None)


def _output_side(image_processor: Any) -> int:
    crop = getattr(image_processor, "crop_size", None)
    if getattr(image_processor, "do_center_crop", False) and crop is not None:
        return int(_get(crop, "height"))
    return int(_get(image_processor.size, "shortest_edge") or _get(image_processor.size, "height"))


def _resized_size(width: int, height: int, settings: ImageSettings) -> tuple[int, int]:
    edge = settings.shortest_edge
    if settings.square:
        return edge, edge
    short, long = (width, height) if width <= height else (height, width)
    long = int(edge * long / short)
    return (edge, long) if width <= height else (long, edge)


def _pad_and_resize(image: Image.Image, settings: ImageSettings) -> Image.Image:
    from PIL import Image

    width, height = image.size
    side = max(width, height)
    target = settings.shortest_edge
    if width == height:
        return image if side == target else image.resize((target, target), resample=settings.resample)
    left, top = (side - width) // 2, (side - height) // 2
    if height < width and side != target and _pillow_resizes_each_row_first():
        # Pillow resizes a square along its rows, then along its columns, with whole numbers between: the rows of the
        # image alone give the same numbers as those of the padded square, and the padding needs no resizing at all.
        image = image.resize((target, height), resample=settings.resample)
        square = Image.new("RGB", (target, side), settings.background)
        square.paste(image, (0, top))
    else:
        square = Image.new("RGB", (side, side), settings.background)
        square.paste(image, (left, top))
    return square if square.size == (target, target) else square.resize((target, target), resample=settings.resample)


@functools.cache
def _pillow_resizes_each_row_first() -> bool:
    """Whether this Pillow does; another order would change a few pixels by a level or two."""
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (61, 61, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    at_once = (np.asarray(image.resize((to, to), 3)) for to in (17, 97))
    in_two = (np.asarray(image.resize((to, 61), 3).resize((to, to), 3)) for to in (17, 97))
    return all(np.array_equal(a, b) for a, b in zip(at_once, in_two, strict=True))


def _center_crop(pixels_HWC: npt.NDArray[np.uint8], crop: tuple[int, int]) -> npt.NDArray[np.uint8]:
    height, width = pixels_HWC.shape[:2]
    if (height, width) == crop:
        return pixels_HWC
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    if top >= 0 and left >= 0:
        return pixels_HWC[top : top + crop[0], left : left + crop[1]]
    # Smaller than the crop: zeros around it, the odd one in front, as the processor has it.
    from transformers.image_transforms import center_crop

    cropped: npt.NDArray[np.uint8] = center_crop(pixels_HWC, crop, input_data_format="channels_last")
    return cropped
