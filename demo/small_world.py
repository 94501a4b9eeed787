"""The demo's world in small, with its base models beside it, to be put into a bucket for runs on a cluster."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo import world
from demo.run import BASE, MIXTURE, RECIPE
from llava import storage

TRAIN, HELD_OUT = 240, 12


def write_small_world(folder: Path) -> Callable[[str], dict[str, Any]]:
    """Write world, base models and mixture into `folder`.

    Returns:
        What gives the full package's parameters, once the folder's content lies at the path or URI it is called with.
    """
    world.write_world(folder, train=TRAIN, held_out=HELD_OUT)
    shutil.copytree(BASE, folder / "base")
    shutil.copy(MIXTURE, folder)

    def parameters_at(place: str) -> dict[str, Any]:
        return {
            "recipe": RECIPE,
            "vision_tower": storage.join(place, "base/clip"),
            "language_model": storage.join(place, "base/llama"),
            "images_uri": place,
            "expand_annotations_uri": storage.join(place, "annotations"),
            "expand_image_prefix": "train2017",
            "expand_mixture": storage.join(place, MIXTURE.name),
            "evaluate_benchmark": "custom",
            "evaluate_questions_uri": storage.join(place, "annotations/questions_val.jsonl"),
            "evaluate_images_uri": place,
        }

    return parameters_at
