"""Padding, resizing and normalisation on the device, from the bytes a JPEG decodes to.

The host then only decodes. Nothing here waits for the device: weights are computed where they are used, and images in
page-locked memory (`Batch.pin_memory`) are copied while the device works. An image above `MAX_DEVICE_PIXELS` comes from
the dataset already at its final size, which this leaves as it is; so the memory for one image is bounded.

The result is not bit for bit the saved processor's: Pillow computes in fixed point, this
in float32, and a value halfway between two levels may be rounded to the other one, in either of two passes. No pixel
differs by more than `TOLERANCE` levels of 255 (tests hold it over sizes and settings), and hardly one in a hundred
differs at all. TF32 products are too coarse for it: leave `torch.backends.cuda.matmul.allow_tf32` off, or expect
another level of difference.

Shapes: C channels, H and W of the source, S target side, I images.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llava.data.preprocess import ImageSettings, normalisation_table
from llava.errors import SettingsError

TOLERANCE = 2
"""Largest difference to the processor's pixels, in levels of 255 before normalisation."""

_BILINEAR, _BICUBIC = 2, 3  # Pillow's numbers
_SUPPORT = {_BILINEAR: 1.0, _BICUBIC: 2.0}

RawImage: TypeAlias = npt.NDArray[np.uint8] | Tensor
"""An image as decoded, (H, W, C) uint8; a tensor once it is in page-locked memory."""


class DevicePreprocessor:
    """Uint8 images to normalised pixels on `device`.

    Args:
        settings: of the saved processor (`Preprocessor.settings`).
        device: where the work is done.
        dtype: of the result.

    Raises:
        SettingsError: AnyRes, a resampling filter other than bilinear or bicubic, or an output that is not the square
            of `shortest_edge`.
    """

    def __init__(
        self, settings: ImageSettings | None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        if settings is None or settings.square or settings.resample not in _SUPPORT or not _makes_squares(settings):
            raise SettingsError(
                "device_preprocess: found true, with an image processor it does not cover; expected padding or a centre"
                " crop to a square of shortest_edge, bilinear or bicubic resampling and no AnyRes; set it to false"
            )
        self.settings = settings
        self.device = torch.device(device)
        self.dtype = dtype
        self._table_CV = torch.from_numpy(normalisation_table(settings)).to(self.device)
        self._mean_colour_C = torch.tensor(settings.background, dtype=torch.float32, device=self.device)

    def __call__(self, images: Sequence[RawImage]) -> Tensor:
        """Pixels (I, C, S, S) of decoded images, each (H, W, C) uint8."""
        return torch.cat([self._one(image) for image in images]).to(self.dtype)

    def _one(self, image_HWC: RawImage) -> Tensor:
        held_HWC = image_HWC if isinstance(image_HWC, Tensor) else torch.tensor(image_HWC)
        source_HWC = held_HWC.to(self.device, non_blocking=True)
        height, width = source_HWC.shape[:2]
        source_CHW = source_HWC.permute(2, 0, 1).float()
        if self.settings.pad:
            side = max(height, width)
            rows, columns = self._padded_weights(height, side), self._padded_weights(width, side)
            background_C, rows_first = self._mean_colour_C, False
        else:
            rows, columns = self._cropped_weights(height, width)
            background_C = torch.zeros_like(self._mean_colour_C)
            # Pillow 13 goes through the rows first where that makes a tall image's second pass much smaller.
            rows_first = height > 2 * width and min(height, width) > self.settings.shortest_edge
        resized_CHW = _resize(source_CHW, rows, columns, background_C[:, None, None], rows_first)
        levels_CSS = resized_CHW.to(torch.int64)
        return torch.gather(self._table_CV, 1, levels_CSS.flatten(1)).view(1, *levels_CSS.shape)

    def _padded_weights(self, size: int, side: int) -> Tensor:
        start = (side - size) // 2
        weights = _weights(side, self.settings.shortest_edge, self.settings.resample, str(self.device))
        return weights[:, start : start + size]

    def _cropped_weights(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        settings = self.settings
        edge = settings.shortest_edge
        long = int(edge * max(height, width) / min(height, width))
        target = (edge, long) if height <= width else (long, edge)
        rows, columns = (
            _weights(size, whole, settings.resample, str(self.device))[(whole - edge) // 2 :][:edge]
            for size, whole in zip((height, width), target, strict=True)
        )
        return rows, columns


def _makes_squares(settings: ImageSettings) -> bool:
    return settings.crop == (settings.shortest_edge,) * 2 or (settings.pad and settings.crop is None)


def _resize(image_CHW: Tensor, rows_SH: Tensor, columns_SW: Tensor, background_C11: Tensor, rows_first: bool) -> Tensor:
    """Two products with whole levels in between, as Pillow has them.

    Around the image lies one colour: the difference to it is resized, so that the padding itself costs nothing.
    """
    if rows_first:
        first = rows_SH @ (image_CHW - background_C11)
        return _levels(_levels(first + background_C11).sub_(background_C11) @ columns_SW.T + background_C11)
    first = (image_CHW - background_C11) @ columns_SW.T
    return _levels(rows_SH @ _levels(first + background_C11).sub_(background_C11) + background_C11)


def _levels(values: Tensor) -> Tensor:
    return values.add_(0.5).floor_().clamp_(0, 255)


@functools.lru_cache(maxsize=64)  # under 1 MB each for photographs; most data have few sizes
def _weights(size: int, target: int, resample: int, device: str) -> Tensor:
    """Pillow's resampling weights as a matrix (target, size); rows sum to one."""
    scale = size / target
    filter_scale = max(scale, 1.0)
    support = _SUPPORT[resample] * filter_scale
    centre_S1 = (torch.arange(target, dtype=torch.float64, device=device)[:, None] + 0.5) * scale
    at_W = torch.arange(size, dtype=torch.float64, device=device)
    first_S1 = (centre_S1 - support + 0.5).trunc().clamp(min=0)
    last_S1 = (centre_S1 + support + 0.5).trunc().clamp(max=size)
    values_SW = _filter((at_W + 0.5 - centre_S1) / filter_scale, resample)
    weights_SW = torch.where((at_W >= first_S1) & (at_W < last_S1), values_SW, 0.0)
    return (weights_SW / weights_SW.sum(1, keepdim=True)).float()


def _filter(x: Tensor, resample: int) -> Tensor:
    x = x.abs()
    if resample == _BILINEAR:
        return (1.0 - x).clamp(min=0.0)
    a = -0.5  # Catmull-Rom's, Pillow's choice
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, 0.0))
