"""A job of as many images as a test needs, one caption each."""

from __future__ import annotations

import json
from pathlib import Path

from llava.expansion.job import Job, open_job


def captions(folder: Path, count: int) -> Path:
    """Annotations of so many images, one caption each."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [{"id": k, "file_name": f"{k:012d}.jpg", "width": 64, "height": 48} for k in range(1, count + 1)]
    rows = [{"id": k, "image_id": k, "caption": f"Scene number {k}."} for k in range(1, count + 1)]
    path = folder / "captions_train2017.json"
    path.write_text(json.dumps({"images": images, "annotations": rows}))
    return path


def job(path: Path, kinds: str = "conversation") -> Job:
    """The job of asking a model named `teacher` about them."""
    return open_job(
        annotations_uri=str(path),
        split="train",
        image_prefix="",
        kinds=kinds,
        expansion_recipe="coco",
        model="teacher",
        limit=0,
        seed=0,
        blocklist_uri="",
        max_bad_rows=0,
    )
