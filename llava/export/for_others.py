"""Image settings under the names that other readers know: transformers.js, onnxruntime-genai, older transformers.

`processor_config.json` holds the processor as it is, padding included, and is what transformers reads. Beside it
`preprocessor_config.json` names the class that all others have: a `CLIPImageProcessor` of the same sizes and colours.
Its pixels are ours where nothing is padded; where `do_pad` is true, the image has to be put into a square of the mean
colour first (docs/evaluation.md has the lines for it).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_TILES = ("LlavaNextImageProcessor",)


def write_for_others(processor: Any, folder: Path) -> None:
    """Write `preprocessor_config.json` into a folder that holds the saved processor.

    The encoder's features come without a class token. Readers that know no strategy would count one for it, so the
    processor says that there is none to take off: the same number of image tokens, in everybody's arithmetic.
    """
    processor.image_processor.save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["processor_class"] = type(processor).__name__
    if not str(settings.get("image_processor_type", "")).startswith(_TILES):
        settings["image_processor_type"] = "CLIPImageProcessor"
    _write(path, settings)
    path = folder / "processor_config.json"
    counts = json.loads(path.read_text(encoding="utf-8"))
    if counts.get("vision_feature_select_strategy") == "default" and counts.get("num_additional_image_tokens") == 1:
        counts |= {"vision_feature_select_strategy": "full", "num_additional_image_tokens": 0}
        _write(path, counts)


def _write(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(f"{json.dumps(settings, indent=2, sort_keys=True)}\n", encoding="utf-8")
