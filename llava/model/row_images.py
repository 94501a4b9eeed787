"""Which images belong to which row of a batch.

The original keeps one counter for the whole batch, so that a row with an image too many or too few silently takes its
neighbour's. Here every row has its own images, and what cannot be attributed without doubt is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch


class RowImage(NamedTuple):
    """One image: pixels (3, H, W) or (tiles, 3, H, W), and its original (height, width) where given."""

    pixels: torch.Tensor
    size: Any


def assign(images: Any, image_sizes: Any, wanted: Sequence[int]) -> tuple[list[list[RowImage]], list[RowImage]]:
    """Each row's images, and the dummy images of rows that have no placeholder.

    Args:
        images, image_sizes: as `prepare_inputs_labels_for_multimodal` takes them.
        wanted: placeholders in each row.

    Raises:
        ValueError: numbers differ, or a flat batch cannot be told apart by row.
    """
    if not isinstance(images, torch.Tensor) and any(row is None or isinstance(row, (list, tuple)) for row in images):
        return _nested(images, image_sizes, wanted), []
    if image_sizes is not None and len(image_sizes) != len(images):
        raise ValueError(f"{len(image_sizes)} image_sizes for {len(images)} images")
    flat = [RowImage(pixels, None if image_sizes is None else image_sizes[i]) for i, pixels in enumerate(images)]
    rest = iter(flat)
    if len(flat) == sum(
        max(1, count) for count in wanted
    ):  # the original's form: a dummy for each row without an image
        taken = [[next(rest) for _ in range(max(1, count))] for count in wanted]
        by_row = [images if count else [] for images, count in zip(taken, wanted, strict=True)]
        return by_row, [images[0] for images, count in zip(taken, wanted, strict=True) if not count]
    if len(flat) == len(wanted):
        row = list(wanted).index(max(wanted))
        raise ValueError(
            f"row {row} has {wanted[row]} image placeholders (-200), and images is a flat batch of one image a row; "
            "give each row its own list of images"
        )
    if len(flat) != sum(wanted):
        raise ValueError(f"{len(flat)} images for {sum(wanted)} image placeholders (-200) in rows that hold {wanted}")
    return [[next(rest) for _ in range(count)] for count in wanted], []


def _nested(images: Sequence[Any], image_sizes: Any, wanted: Sequence[int]) -> list[list[RowImage]]:
    if len(images) != len(wanted):
        raise ValueError(f"images has {len(images)} rows for {len(wanted)} rows of input_ids")
    rows = []
    for row, (own, count) in enumerate(zip(images, wanted, strict=True)):
        pixels = list(own) if own is not None else []
        if len(pixels) != count:
            raise ValueError(f"row {row} has {count} image placeholders (-200) and {len(pixels)} images")
        sizes = [None] * count if image_sizes is None or image_sizes[row] is None else list(image_sizes[row])
        if len(sizes) != count:
            raise ValueError(f"row {row} has {count} images and {len(sizes)} image_sizes")
        rows.append([RowImage(*pair) for pair in zip(pixels, sizes, strict=True)])
    return rows
