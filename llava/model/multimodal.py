"""`prepare_inputs_labels_for_multimodal`: images merged into a batch of text, as the original LLaVA does it.

Here an image is ONE id, -200, wherever it stands in the text; its visual tokens take its place, so rows grow. This is
the form of the original's checkpoints and scripts. Our own training uses rows whose placeholders are already as many
as the visual tokens (`llava.model.forward`), which is what the hub's processor makes; a test holds the two equal.

Shapes: B rows, T ids, S tokens after merging (longest row), D text width, L visual tokens of an image.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch

from llava.model.features import image_features
from llava.model.row_images import RowImage, assign

IMAGE_TOKEN_INDEX = -200
IGNORE_INDEX = -100

Images: TypeAlias = torch.Tensor | Sequence[Any] | None


class Prepared(NamedTuple):
    """What the language model is called with; `input_ids` is None where `inputs_embeds` (B, S, D) stands in for it."""

    input_ids: torch.Tensor | None
    position_ids: torch.Tensor | None
    attention_mask: torch.Tensor | None
    past_key_values: Any
    inputs_embeds: torch.Tensor | None
    labels: torch.Tensor | None


def prepare_inputs_labels_for_multimodal(
    model: Any,
    input_ids: torch.Tensor,
    position_ids: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    past_key_values: Any,
    labels: torch.Tensor | None,
    images: Images,
    image_sizes: Sequence[Any] | torch.Tensor | None = None,
    *,
    max_length: int | None = None,
    padding_side: Literal["left", "right"] | None = None,
) -> Prepared:
    """Replace every -200 in `input_ids` by the visual tokens of its image and pad the rows again.

    A function of the model; `functools.partial(prepare_inputs_labels_for_multimodal, model)` has the original's exact
    signature. Position ids count 0..n-1 over each row's real tokens and are 0 in the padding; labels at visual tokens
    and padding are -100; a row longer than `max_length` is cut on the right. Whatever of `position_ids`,
    `attention_mask` and `labels` is None comes back as None.

    Args:
        model: a LLaVA or LLaVA-NeXT as `build_model` makes it.
        input_ids: (B, T), -200 for an image; padding is what `attention_mask` says is padding.
        position_ids: only whether it is None matters: positions are counted anew.
        attention_mask: (B, T) 0/1 or bool; None: no padding.
        past_key_values: handed through.
        labels: (B, T), -100 where not trained.
        images: each row's own images, or a flat batch of them:
            a sequence of B entries, each None or a list of images, or
            a tensor (I, 3, H, W) or a flat sequence of I images, row after row: as many as the row has placeholders,
            and one dummy for a row without any, as in the original's batches (4 images for rows with 1, 0 and 2); or
            I = the placeholders of the batch, without dummies.
            An image is (3, H, W), or (tiles, 3, H, W) whose tiles' tokens are joined (`flatten(0, 1)`).
        image_sizes: LLaVA-NeXT: (height, width) of each original image, in the same order and nesting as `images`.
        max_length: default `model.config.tokenizer_model_max_length` where set, else no limit.
        padding_side: default `model.config.tokenizer_padding_side` where set, else right.

    Raises:
        ValueError: a row's placeholders and images differ in number, or a flat batch cannot be told apart by row.
    """
    has_placeholders = bool((input_ids == IMAGE_TOKEN_INDEX).any())
    if images is None and has_placeholders:
        raise ValueError("input_ids hold image placeholders (-200), but images is None")
    if images is None or (input_ids.shape[1] == 1 and not has_placeholders):
        return Prepared(input_ids, position_ids, attention_mask, past_key_values, None, labels)
    max_length = max_length or getattr(model.config, "tokenizer_model_max_length", None)
    side = padding_side or getattr(model.config, "tokenizer_padding_side", None) or "right"

    real_BT = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    rows_ids = [ids[real] for ids, real in zip(input_ids, real_BT, strict=True)]
    rows_labels = (
        [torch.full_like(ids, IGNORE_INDEX) for ids in rows_ids]
        if labels is None
        else [row[real] for row, real in zip(labels, real_BT, strict=True)]
    )
    wanted = [int((ids == IMAGE_TOKEN_INDEX).sum()) for ids in rows_ids]
    by_row, dummies = assign(images, image_sizes, wanted)
    features = _features(model, [image for row in by_row for image in row] + dummies)
    ends = [0, *itertools.accumulate(wanted)]
    features_of_row, unused = [features[a:b] for a, b in itertools.pairwise(ends)], features[ends[-1] :]

    embed = model.get_input_embeddings()
    merged = [
        _merge_row(embed, ids, row, features)
        for ids, row, features in zip(rows_ids, rows_labels, features_of_row, strict=True)
    ]
    embeds = [row_embeds[:max_length] for row_embeds, _ in merged]
    row_labels = [row[:max_length] for _, row in merged]
    embeds[0] = embeds[0] + sum((feature.sum() for feature in unused), embeds[0].new_zeros(())) * 0.0

    lengths = [row.shape[0] for row in embeds]
    span = max(lengths)
    embeds_BSD = embeds[0].new_zeros(len(embeds), span, embeds[0].shape[1])
    labels_BS = row_labels[0].new_full((len(embeds), span), IGNORE_INDEX)
    mask_BS = torch.zeros(len(embeds), span, dtype=torch.bool, device=embeds_BSD.device)
    positions_BS = torch.zeros(len(embeds), span, dtype=torch.long, device=embeds_BSD.device)
    for i, length in enumerate(lengths):
        where = slice(span - length, span) if side == "left" else slice(0, length)
        embeds_BSD[i, where] = embeds[i]
        labels_BS[i, where] = row_labels[i]
        mask_BS[i, where] = True
        positions_BS[i, where] = torch.arange(length, device=embeds_BSD.device)
    return Prepared(
        None,
        None if position_ids is None else positions_BS,
        None if attention_mask is None else mask_BS.to(attention_mask.dtype),
        past_key_values,
        embeds_BSD,
        None if labels is None else labels_BS,
    )


def _merge_row(
    embed: Any, ids: torch.Tensor, labels: torch.Tensor, features: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """One row without padding: (embeddings (n, D), labels (n)), the k-th placeholder replaced by the k-th features."""
    words = embed(ids.clamp_min(0))  # placeholders are negative; what stands there is dropped below
    pieces, piece_labels, start = [], [], 0
    for place, feature in zip((ids == IMAGE_TOKEN_INDEX).nonzero().flatten().tolist(), features, strict=True):
        pieces += [words[start:place], feature.to(words)]
        piece_labels += [labels[start:place], labels.new_full((feature.shape[0],), IGNORE_INDEX)]
        start = place + 1
    return torch.cat([*pieces, words[start:]]), torch.cat([*piece_labels, labels[start:]])


def _features(model: Any, images: list[RowImage]) -> list[torch.Tensor]:
    """Visual tokens (L, D) of each image, tiles joined."""
    if not images:
        return []
    tiled = [image.pixels[None] if image.pixels.ndim == 3 else image.pixels for image in images]
    stacked = torch.cat([tiles.to(model.device) for tiles in tiled])
    if hasattr(model.model, "image_newline"):
        if any(image.size is None for image in images):
            raise ValueError("LLaVA-NeXT needs image_sizes: its tiles are laid out by the original height and width")
        return image_features(model, stacked, torch.tensor([[int(x) for x in image.size] for image in images]))
    per_tile = iter(image_features(model, stacked))
    return [torch.stack(list(itertools.islice(per_tile, len(tiles)))).flatten(0, 1) for tiles in tiled]
