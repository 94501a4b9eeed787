"""Batches for the model's tests, made by hand: the same rows as separate batches, a padded batch and a pack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

VISUAL = 16  # visual tokens of the tiny CLIP's image


@dataclass
class TestBatch:
    """The part of `llava.data.batches.Batch` that the model reads, and the targets."""

    __test__ = False

    input_ids_BT: torch.Tensor
    position_ids_BT: torch.Tensor
    attention_mask_BT: torch.Tensor | None
    cu_seqlens_N: torch.Tensor | None
    max_seqlen: int
    pixel_values_ICHW: torch.Tensor
    has_images: bool
    image_sizes_I2: torch.Tensor | None
    target_index_K: torch.Tensor
    target_ids_K: torch.Tensor


@dataclass
class Row:
    """Ids with expanded placeholders, where the answer starts, and the row's images."""

    ids: list[int]
    answer: int
    pixels: list[torch.Tensor]


def make_row(model: Any, *, text: int, images: int = 1, seed: int = 0, before: int = 1) -> Row:
    """BOS, `before` words, the images, `text` words of which the last half is the answer."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(3, 500, (text + before,), generator=generator).tolist()
    ids = [1, *words[:before], *[model.config.image_token_index] * VISUAL * images, *words[before:]]
    side = model.config.vision_config.image_size
    return Row(ids, len(ids) - text // 2, [torch.randn(3, side, side, generator=generator) for _ in range(images)])


def padded(rows: Sequence[Row], *, side: str = "right", pad: int = 0) -> TestBatch:
    """One row each, padded to the longest."""
    span = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), span), pad)
    mask, positions = torch.zeros_like(ids), torch.zeros_like(ids)
    index: list[int] = []
    targets: list[int] = []
    for i, row in enumerate(rows):
        start = span - len(row.ids) if side == "left" else 0
        where = slice(start, start + len(row.ids))
        ids[i, where] = torch.tensor(row.ids)
        mask[i, where] = 1
        positions[i, where] = torch.arange(len(row.ids))
        index += [i * span + start + j - 1 for j in range(row.answer, len(row.ids))]
        targets += row.ids[row.answer :]
    return _batch(rows, ids, positions, mask, None, span, index, targets)


def packed(rows: Sequence[Row]) -> TestBatch:
    """All rows end to end."""
    bounds = [0]
    index: list[int] = []
    for row in rows:
        index += [bounds[-1] + j - 1 for j in range(row.answer, len(row.ids))]
        bounds.append(bounds[-1] + len(row.ids))
    return _batch(
        rows,
        torch.tensor([[token for row in rows for token in row.ids]]),
        torch.cat([torch.arange(len(row.ids)) for row in rows])[None],
        None,
        torch.tensor(bounds, dtype=torch.int32),
        max(len(row.ids) for row in rows),
        index,
        [token for row in rows for token in row.ids[row.answer :]],
    )


def _batch(
    rows: Sequence[Row],
    ids: torch.Tensor,
    positions: torch.Tensor,
    mask: torch.Tensor | None,
    bounds: torch.Tensor | None,
    longest: int,
    index: list[int],
    targets: list[int],
) -> TestBatch:
    pixels = [image for row in rows for image in row.pixels]
    side = pixels[0].shape[-1] if pixels else 48
    return TestBatch(
        input_ids_BT=ids,
        position_ids_BT=positions,
        attention_mask_BT=mask,
        cu_seqlens_N=bounds,
        max_seqlen=longest,
        pixel_values_ICHW=torch.stack(pixels) if pixels else torch.zeros(1, 3, side, side),
        has_images=bool(pixels),
        image_sizes_I2=None,
        target_index_K=torch.tensor(index),
        target_ids_K=torch.tensor(targets),
    )
