"""Every kind of projector has a line in the manifest that says who loads it."""

from __future__ import annotations

import re

import pytest

from llava.stages.train_stage import serving_note


@pytest.mark.parametrize(
    ("projector", "said"),
    [
        ("mlp2x_gelu", "transformers and vLLM"),
        ("linear", "transformers only: .*`linear`"),
        ("identity", "transformers only: .*`linear`"),
        ("mlp3x_gelu", "transformers only, with trust_remote_code"),
        ("mlp1x_gelu", "transformers only: .*`linear`"),
    ],
)
def test_the_manifest_says_who_loads_the_model(projector: str, said: str) -> None:
    assert re.match(said, serving_note(projector))
