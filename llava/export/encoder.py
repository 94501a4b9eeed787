"""Vision tower and projector as one module: pixels in, visual tokens out, ready to be placed among word embeddings.

Shapes: I images (or tiles), C colour channels, H height, W width, P visual tokens an image, D text width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from llava.model.features import tower_features

INPUT, OUTPUT = "pixel_values", "image_features"  # the names transformers.js and other consumers look for


class VisionEncoder(nn.Module):
    """`pixel_values` (I, C, H, W) float32 to `image_features` (I, P, D) float32, whatever the type inside.

    For LLaVA-NeXT an image is a tile: laying tiles out and adding `image_newline` stays with the consumer.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The features; layers behind the one they are taken from are not run."""
        projected_IPD: torch.Tensor = self.model.model.multi_modal_projector(tower_features(self.model, pixel_values))
        return projected_IPD.float()


def sample_pixels(processor: Any, count: int, seed: int = 0) -> torch.Tensor:
    """(count, C, H, W): images with shapes, gradients and noise, preprocessed as the model's processor does it."""
    generator = np.random.default_rng(seed)
    images = [_image(generator, kind) for kind in range(count)]
    pixels: torch.Tensor = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    if pixels.dim() == 5:  # LLaVA-NeXT: the overview tile of each
        pixels = pixels[:, 0]
    return pixels.float()


def _image(generator: np.random.Generator, kind: int) -> Image.Image:
    width, height = (int(side) for side in generator.integers(160, 480, size=2))
    base = generator.integers(0, 256, size=3)
    ramp = np.linspace(0, 1, width)[None, :, None] * generator.integers(-120, 120, size=3)
    noise = generator.normal(0, (4, 24, 60)[kind % 3], size=(height, width, 3))
    image = Image.fromarray(np.clip(base + ramp + noise, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(1 + kind % 4):
        left, top = int(generator.integers(0, width - 40)), int(generator.integers(0, height - 40))
        right, bottom = left + int(generator.integers(20, 120)), top + int(generator.integers(20, 120))
        colour = tuple(int(value) for value in generator.integers(0, 256, size=3))
        (draw.ellipse if generator.random() < 0.5 else draw.rectangle)((left, top, right, bottom), fill=colour)
    return image
