"""Every kind of projector has a line in the manifest that says who loads it."""

from __future__ import annotations

import re

import pytest

from llava.stages.train_stage import serving_note


@pytest.mark.parametrize(
    ("projector", "tower", "said"),
    [
        ("mlp2x_gelu", "siglip_vision_model", "transformers and vLLM$"),
        ("mlp2x_gelu", "dinov2", "transformers only: .*DINOv2"),
        ("mlp2x_gelu", "clip_vision_model", "transformers and vLLM"),
        ("linear", "clip_vision_model", "transformers only: .*`linear`"),
        ("identity", "clip_vision_model", "transformers only: .*`linear`"),
        ("mlp3x_gelu", "clip_vision_model", "transformers only, with trust_remote_code"),
        ("mlp1x_gelu", "clip_vision_model", "transformers only: .*`linear`"),
    ],
)
def test_the_manifest_says_who_loads_the_model(projector: str, tower: str, said: str) -> None:
    assert re.match(said, serving_note(projector, tower))
