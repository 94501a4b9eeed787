"""[Contract] AnyRes goes the same way: dataset, packing, two ranks, both stages, the stock class, export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llava.stages import export
from llava.training.job import Job, Result
from tests.conftest import TinyWorld
from tests.training.jobs import losses, make_job, run_together

pytestmark = pytest.mark.slow

PINPOINTS = [[48, 96], [96, 48], [96, 96]]


@pytest.fixture(scope="module")
def anyres_recipe(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = json.loads(tiny_recipe.read_text())
    recipe["model"] |= {"architecture": "llava_next", "image_grid_pinpoints": PINPOINTS}
    for stage in ("pretrain", "finetune"):
        recipe[stage] |= {"max_length": 320, "pack_tokens": 640, "pack_images": 40, "max_steps": 4}
    path = tmp_path_factory.mktemp("anyres") / "anyres.yaml"
    path.write_text(json.dumps(recipe))
    return path


@pytest.fixture(scope="module")
def mixed(odd_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """Instruction rows of two images, of one and of none."""
    rows = json.loads(odd_world.instruct_json.read_text())
    for row in rows[::3]:
        row.pop("image", None)
        row["conversations"][0]["value"] = "How many shapes are there?"
    for row in rows[1::3]:
        if "image" in row:
            row["image"] = [row["image"], rows[5]["image"]]
            row["conversations"][0]["value"] = "<image>\n<image>\nWhat is shown?"
    path = tmp_path_factory.mktemp("anyres-rows") / "rows.json"
    path.write_text(json.dumps(rows))
    return replace(odd_world, instruct_json=path)


def run(jobs: Sequence[Job], ranks: int, folder: Path) -> list[Result]:
    folder.mkdir()
    return run_together(jobs, ranks, folder)


def test_anyres_from_rows_to_export(anyres_recipe: Path, mixed: TinyWorld, tmp_path: Path) -> None:
    def job(stage: str, name: str, **fields: Any) -> Job:
        return make_job(stage, anyres_recipe, mixed, tmp_path / name, **fields)

    first = job("pretrain", "stage 1", packing=True)
    packed = job("finetune", "packed", projector=first.output_uri, packing=True, zero_stage=3)
    padded = job("finetune", "padded", projector=first.output_uri, micro_batch_size=1)
    stage_1, two_ranks = run([first, packed], 2, tmp_path / "two")
    [one_rank] = run([padded], 1, tmp_path / "one")
    assert losses(stage_1)[-1] < losses(stage_1)[0]
    assert losses(two_ranks) == pytest.approx(losses(one_rank), abs=2e-6)

    from PIL import Image
    from transformers import AutoProcessor, LlavaNextForConditionalGeneration

    model = LlavaNextForConditionalGeneration.from_pretrained(packed.output_uri)
    processor = AutoProcessor.from_pretrained(packed.output_uri)
    picture = Image.open(next((mixed.root / "train2017").glob("*.jpg")))
    inputs = processor(text="USER: <image>\nWhat is shown? ASSISTANT:", images=picture, return_tensors="pt")
    answer = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert answer.shape[1] > inputs["input_ids"].shape[1]

    outputs = export.Outputs(
        onnx=str(tmp_path / "onnx"), report=str(tmp_path / "export.html"), metrics=str(tmp_path / "metrics")
    )
    export.run(export.Settings(precisions="fp32"), export.Inputs(model=packed.output_uri), outputs)
    assert (tmp_path / "onnx" / "onnx" / "vision_encoder.onnx").exists()
