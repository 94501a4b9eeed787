"""Images to visual tokens: the used part of the tower, the projector, and for AnyRes the layout of tiles.

The stock classes run all of the tower's layers although the features come from the last but one; here the layers
behind `vision_feature_layer` are not run. They stay in the model and in its checkpoints.

Shapes: I images (tiles for AnyRes), C colour channels, H height, W width, P patches, E tower width, D text width.
"""

from __future__ import annotations

from typing import Any

import torch

from llava.model import towers


def tower_features(model: Any, pixel_values_ICHW: torch.Tensor) -> torch.Tensor:
    """Features of the tower as the projector takes them, (I, P, E). No graph is recorded for a frozen tower."""
    tower, config = model.model.vision_tower, model.config
    layers = towers.layers_of(tower)
    used = towers.used_layers(len(layers), config.vision_feature_layer)
    trained = any(parameter.requires_grad for parameter in tower.parameters())
    with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
        hidden_IPE = pixel_values_ICHW.to(towers.input_dtype(tower))
        for module in towers.modules_before(tower):
            hidden_IPE = module(hidden_IPE)
        for encoder_layer in layers[:used]:
            hidden_IPE = encoder_layer(hidden_IPE, None)
    return hidden_IPE[:, 1:] if config.vision_feature_select_strategy == "default" else hidden_IPE


def image_features(
    model: Any, pixel_values_ICHW: torch.Tensor, image_sizes_I2: torch.Tensor | None = None
) -> list[torch.Tensor]:
    """Visual tokens of each image, in order: a list of (tokens, D).

    Args:
        model: LLaVA or LLaVA-NeXT.
        pixel_values_ICHW: one square per image; for LLaVA-NeXT the tiles of all images, one after the other.
        image_sizes_I2: LLaVA-NeXT only: (height, width) of each original image, kept on the host.

    Raises:
        ValueError: tiles and sizes disagree.
    """
    projected_IPD = model.model.multi_modal_projector(tower_features(model, pixel_values_ICHW))
    if image_sizes_I2 is None or not hasattr(model.model, "image_newline"):
        return list(projected_IPD)
    tiles = [tiles_of(model.config, size) for size in image_sizes_I2.tolist()]
    if sum(tiles) != projected_IPD.shape[0]:
        raise ValueError(
            f"{projected_IPD.shape[0]} tiles for images of sizes {image_sizes_I2.tolist()}, which make {tiles}: "
            "a tile too many or too few"
        )
    packed, _ = model.model.pack_image_features(
        list(torch.split(projected_IPD, tiles)),
        image_sizes_I2,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        image_newline=model.model.image_newline,
    )
    return list(packed)


def tiles_of(config: Any, size: list[int]) -> int:
    """Tiles an image of (height, width) is cut into by LLaVA-NeXT, the overview included."""
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    return int(image_size_to_num_patches(size, config.image_grid_pinpoints, config.vision_config.image_size))
