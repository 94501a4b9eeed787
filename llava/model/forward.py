"""The training forward: images merged, the language model run over a padded batch or a pack, logits where labels are.

Nothing here asks the device for a value, so the host runs ahead of it: counts and boundaries come with the batch.

Shapes: B rows (1 for a pack), T tokens, D text width, K supervised positions, V vocabulary, I images
(or tiles), N boundaries.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from llava.model import attention
from llava.model.features import image_features, tower_features


class Batch(Protocol):
    """What the forward needs of a batch (`llava.data.batches.Batch` is one); see docs/architecture.md, Contracts."""

    input_ids_BT: torch.Tensor
    position_ids_BT: torch.Tensor
    attention_mask_BT: torch.Tensor | None
    cu_seqlens_N: torch.Tensor | None
    max_seqlen: int
    pixel_values_ICHW: torch.Tensor
    has_images: bool
    image_sizes_I2: torch.Tensor | None
    target_index_K: torch.Tensor


def supervised_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Logits (K, V) at the positions whose next token is supervised, in the model's dtype; see `supervised_hidden`."""
    logits_KV: torch.Tensor = model.lm_head(supervised_hidden(model, batch))
    return logits_KV


def supervised_hidden(model: Any, batch: Batch) -> torch.Tensor:
    """Last hidden states (K, D) at the positions whose next token is supervised.

    Raises:
        ValueError: placeholders in the ids and visual tokens of the images differ in number.
        RuntimeError: a pack, and the packed attention is not installed: its rows would see each other.
    """
    if batch.cu_seqlens_N is not None and not attention.is_installed(model):
        raise RuntimeError(
            "a pack was given to a model without the packed attention; call llava.model.attention.install(model) first"
        )
    embeddings_BTD = merged_embeddings(model, batch)
    more: dict[str, Any]
    if batch.cu_seqlens_N is not None:
        mask = attention.pack_mask(embeddings_BTD.device)
        more = {"cu_seqlens_N": batch.cu_seqlens_N, "max_seqlen": batch.max_seqlen}
    elif batch.attention_mask_BT is not None:
        mask, more = attention.padded_mask(batch.attention_mask_BT), {"padded_rows": True}
    else:
        raise ValueError("a batch needs attention_mask_BT (padded) or cu_seqlens_N (packed)")
    hidden_BTD = model.model.language_model(
        inputs_embeds=embeddings_BTD,
        attention_mask=mask,
        position_ids=batch.position_ids_BT,
        use_cache=False,
        **more,
    ).last_hidden_state
    hidden_KD: torch.Tensor = hidden_BTD.flatten(0, 1).index_select(0, batch.target_index_K)
    return hidden_KD


def merged_embeddings(model: Any, batch: Batch) -> torch.Tensor:
    """Word embeddings (B, T, D) with each `<image>` placeholder replaced by its visual token.

    A batch without images still runs tower and projector on its dummy image, times zero: under ZeRO-3 and data
    parallelism every rank must call the same modules, or the others wait for ever.
    """
    embeddings_BTD: torch.Tensor = model.get_input_embeddings()(batch.input_ids_BT)
    if not batch.has_images:
        return embeddings_BTD + _zero(model, batch.pixel_values_ICHW).to(embeddings_BTD.dtype)
    features = torch.cat(image_features(model, batch.pixel_values_ICHW, batch.image_sizes_I2)).to(embeddings_BTD.dtype)
    placeholder_BT = batch.input_ids_BT == model.config.image_token_index
    _check_counts(placeholder_BT, features.shape[0])
    # The backward pass of `masked_scatter` asks the device how many there are, and waits; sorting needs no answer.
    at_V = placeholder_BT.flatten().logical_not().to(torch.uint8).argsort(stable=True)[: features.shape[0]]
    if embeddings_BTD.shape[0] == 1:  # a pack: no view, which compiled layers would guard the size of
        return embeddings_BTD.index_copy(1, at_V, features[None])
    return embeddings_BTD.flatten(0, 1).index_copy(0, at_V, features).view_as(embeddings_BTD)


def _zero(model: Any, pixel_values_ICHW: torch.Tensor) -> torch.Tensor:
    zero: torch.Tensor = model.model.multi_modal_projector(tower_features(model, pixel_values_ICHW[:1])).sum() * 0.0
    if hasattr(model.model, "image_newline"):
        zero = zero + model.model.image_newline.sum() * 0.0
    return zero


def _check_counts(placeholder_BT: torch.Tensor, features: int) -> None:
    found = placeholder_BT.sum()
    if found.device.type == "cpu":
        if int(found) != features:
            raise ValueError(
                f"{int(found)} image placeholders in the ids for {features} visual tokens: "
                "images and rows do not belong together"
            )
    elif found.device.type == "cuda":
        torch._assert_async(found == features, "image placeholders and visual tokens differ in number")
