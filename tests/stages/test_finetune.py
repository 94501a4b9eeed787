"""The finetune stage: what it hands over, and that stock transformers reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llava.errors import SettingsError
from llava.manifest import read_manifest
from llava.stages import finetune, pretrain
from llava.stages.stage import StageResult
from tests.conftest import TinyWorld

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def projector(tiny_recipe: Path, tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("stage-1")
    outputs = pretrain.Outputs(
        projector=str(out / "projector"), checkpoints=str(out / "c"), report=str(out / "r.html"), metrics=str(out / "m")
    )
    settings = pretrain.Settings(recipe=str(tiny_recipe), images_uri=tiny_world.images_uri, threads_per_process=1)
    pretrain.run(settings, pretrain.Inputs(data=str(tiny_world.pretrain_json)), outputs)
    return str(out / "projector")


def run(recipe: Path, world: TinyWorld, projector: str, out: Path, **fields: Any) -> StageResult:
    outputs = finetune.Outputs(
        model=str(out / "model"), checkpoints=str(out / "c"), report=str(out / "r.html"), metrics=str(out / "m")
    )
    settings = finetune.Settings(
        recipe=str(recipe),
        images_uri=world.images_uri,
        threads_per_process=1,
        overrides=json.dumps(
            {f"finetune.{name}" if "." not in name else name: value for name, value in fields.items()}
        ),
    )
    return finetune.run(settings, finetune.Inputs(data=str(world.instruct_json), projector=projector), outputs)


STOCK = """
import sys
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration
folder, picture = sys.argv[1:]
model = LlavaForConditionalGeneration.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is shown?"}]}]
text = processor.apply_chat_template(messages, add_generation_prompt=True)
inputs = processor(text=text, images=Image.open(picture), return_tensors="pt")
print(model.generate(**inputs, max_new_tokens=4, do_sample=False).shape[1] - inputs["input_ids"].shape[1])
assert not any(name.split(".")[0] == "llava" for name in sys.modules)
"""


@pytest.mark.parametrize("lora", [None, {"r": 4, "alpha": 8}], ids=["full", "lora"])
def test_the_model_is_a_hub_directory(
    tiny_recipe: Path, tiny_world: TinyWorld, projector: str, tmp_path: Path, lora: dict[str, int] | None
) -> None:
    result = run(tiny_recipe, tiny_world, projector, tmp_path, packing=True, lora=lora)
    manifest = read_manifest(str(tmp_path / "model"))
    assert (manifest.kind, manifest.parents["projector"]) == ("model", projector)
    assert result.metrics["padding_share"] == 0.0
    picture = next((tiny_world.root / "train2017").glob("*.jpg"))
    command = [sys.executable, "-c", STOCK, str(tmp_path / "model"), str(picture)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert answer.returncode == 0, answer.stderr
    assert 1 <= int(answer.stdout) <= 4


def test_a_projector_of_another_kind_is_refused(
    tiny_recipe: Path, tiny_world: TinyWorld, projector: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="projector: .*'mlp2x_gelu'.*'linear'"):
        run(tiny_recipe, tiny_world, projector, tmp_path, **{"model.projector": "linear"})
