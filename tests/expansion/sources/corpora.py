"""What the tests of the sources open: a corpus of any form, and the files it is made of."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from llava.expansion.sources.corpus import AnnotatedImage, Corpus
from llava.expansion.sources.opening import open_corpus


def opened(uri: Path | str, prefix: str = "", **more: Any) -> list[AnnotatedImage]:
    return list(corpus(uri, prefix, **more))


def corpus(
    uri: Path | str, prefix: str = "", *, split: str = "train", images: Path | str = "", limit: int = 0
) -> Corpus:
    return open_corpus(str(uri), split=split, image_prefix=prefix, images_uri=str(images), limit=limit)


def put(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def jpeg(colour: str = "red", size: tuple[int, int] = (40, 20)) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", size, colour).save(written, "JPEG")
    return written.getvalue()


# As Roboflow exports COCO: a root category, file names with a hash, images beside the file, a folder for each split.
ROBOFLOW = {
    "info": {"description": "Exported from roboflow.com"},
    "licenses": [{"id": 1, "url": "", "name": "CC BY 4.0"}],
    "categories": [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "animals"},
    ],
    "images": [{"id": 0, "license": 1, "file_name": "a_jpg.rf.0f1e.jpg", "height": 640, "width": 640}],
    "annotations": [
        {"id": 0, "image_id": 0, "category_id": 1, "bbox": [64, 32, 320.5, 128], "segmentation": [], "iscrowd": 0}
    ],
}  # fmt: skip
