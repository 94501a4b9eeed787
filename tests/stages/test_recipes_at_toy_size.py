"""The recipes of today, themselves, through both stages and the export at toy size.

Only the parts are exchanged for small random ones, and what a CPU cannot do is off; template, aspect ratio, packing
and schedule are the recipe's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llava.manifest import read_manifest
from llava.stages import export, finetune, pretrain
from tests.conftest import TinyWorld
from tests.model.tiny_parts import write_dinov2, write_language_model, write_siglip

pytestmark = pytest.mark.slow
STOCK = """
import sys
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration
model, report = LlavaForConditionalGeneration.from_pretrained(sys.argv[1], output_loading_info=True)
assert not report["missing_keys"] and not report["unexpected_keys"], report
processor = AutoProcessor.from_pretrained(sys.argv[1])
content = [{"type": "image"}, {"type": "text", "text": "What is shown?"}]
text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
inputs = processor(text=text, images=Image.open(sys.argv[2]).convert("RGB"), return_tensors="pt")
model.generate(**inputs, max_new_tokens=2)
assert "llava.model" not in sys.modules
"""


@pytest.mark.parametrize(
    ("recipe", "tower", "family", "serving"),
    [
        ("siglip2-qwen3-0.6b", "siglip", "qwen3", "transformers and vLLM"),
        ("clip-llama3.1-8b", "dinov2", "llama", "transformers only: vLLM's LLaVA takes CLIP and SigLIP"),
    ],
)
def test_trained_exported_and_loaded_by_stock_code(
    recipe: str,
    tower: str,
    family: str,
    serving: str,
    tiny_llama_dir: Path,
    tiny_world: TinyWorld,
    tmp_path: Path,
) -> None:
    """The tower is trained too in stage 2, so that its gradients, state and keys go the whole way."""
    write_tower = write_siglip if tower == "siglip" else write_dinov2
    changed: dict[str, Any] = {}
    for stage in ("pretrain", "finetune"):
        small = {"max_steps": 3, "global_batch_size": 8, "max_length": 512, "pack_tokens": 1024, "pack_images": 8}
        cpu = {"compile": False, "precision": "fp32", "zero_stage": 0, "loader_workers": 1, "log_every_steps": 1}
        changed |= {f"{stage}.{name}": value for name, value in (small | cpu).items()}
    changed["finetune.vision_tower_learning_rate"] = 1e-3
    settings = {
        "recipe": recipe,
        "vision_tower": str(write_tower(tmp_path / "tower")),
        "language_model": str(write_language_model(tmp_path / "language-model", family, tiny_llama_dir)),
        "overrides": json.dumps(changed),
        "images_uri": tiny_world.images_uri,
        "threads_per_process": 1,
    }
    place = lambda name: str(tmp_path / "out" / name)  # noqa: E731
    first = pretrain.STAGE.run(
        pretrain.Settings.model_validate(settings),
        pretrain.Inputs(data=str(tiny_world.pretrain_json)),
        pretrain.Outputs(
            projector=place("projector"), checkpoints=place("1"), report=place("1.html"), metrics=place("m1")
        ),
    )
    second = finetune.STAGE.run(
        finetune.Settings.model_validate(settings),
        finetune.Inputs(data=str(tiny_world.instruct_json), projector=place("projector")),
        finetune.Outputs(model=place("model"), checkpoints=place("2"), report=place("2.html"), metrics=place("m2")),
    )
    assert first.metrics["steps"] == second.metrics["steps"] == 3
    assert read_manifest(place("model")).extra["serving"].startswith(serving)

    picture = next((tiny_world.root / "train2017").glob("*.jpg"))
    subprocess.run([sys.executable, "-c", STOCK, place("model"), str(picture)], check=True, cwd=tmp_path)
    exported = export.run(
        export.Settings(precisions="fp32"),
        export.Inputs(model=place("model")),
        export.Outputs(onnx=place("onnx"), report=place("3.html"), metrics=place("m3")),
    )
    assert [value for name, value in exported.metrics.items() if "cosine" in name] == pytest.approx([1.0], abs=1e-5)
