"""The pretrain stage from its settings to its report, and what it says about bad input."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llava.errors import DataError, SettingsError
from llava.manifest import read_manifest
from llava.stages.pretrain import STAGE, Inputs, Outputs, Settings
from llava.stages.stage import StageResult
from tests.conftest import TinyWorld
from tests.s3_server import S3Server


def run(recipe: Path, world: TinyWorld, out: str, *, data: str = "", **settings: Any) -> StageResult:
    outputs = Outputs(
        projector=f"{out}/projector", checkpoints=f"{out}/checkpoints", report=f"{out}/report.html", metrics=f"{out}/m"
    )
    chosen = Settings.model_validate(
        {"recipe": str(recipe), "images_uri": world.images_uri, "threads_per_process": 1, **settings}
    )
    return STAGE.run(chosen, Inputs(data=data or str(world.pretrain_json)), outputs)


def overrides(**fields: Any) -> str:
    return json.dumps({f"pretrain.{name}": value for name, value in fields.items()})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overrides": '{"pretrain.learning_rat": 1}'}, r"learning_rat: unknown field .*learning_rate"),
        ({"overrides": "{pretrain"}, "overrides: not JSON"),
        ({"overrides": "[1]"}, "overrides: .*expected a JSON object"),
        ({"overrides": '{"pretrain.zero_stage": 7}'}, "zero_stage: found 7"),
        ({"recipe": "no-such-recipe"}, "no-such-recipe"),
        ({"processes": "many"}, "processes: found 'many'; expected auto or a number"),
        ({"overrides": '{"pretrain.nodes": 2}'}, "data_uri: found .*2 nodes share nothing but object storage"),
        ({"train_job": '{"gpus": 8}'}, "gpus: unknown field"),
        ({"processes": "9"}, "global_batch_size: found 8; with 9 processes expected at least 9"),
    ],
)
def test_settings_are_refused_before_anything_starts(
    settings: dict[str, str], message: str, tiny_recipe: Path, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message):
        run(Path(settings.pop("recipe", str(tiny_recipe))), tiny_world, str(tmp_path), **settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_leaves_projector_manifest_report_and_numbers(
    tiny_recipe: Path, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    result = run(tiny_recipe, tiny_world, str(tmp_path), overrides=overrides(validation_rows=8, sample_generations=1))
    manifest = read_manifest(str(tmp_path / "projector"))
    assert (manifest.kind, manifest.stage) == ("projector", "pretrain")
    assert manifest.recipe["name"] == "test-tiny"
    assert manifest.parents == {"data": str(tiny_world.pretrain_json)}
    assert "projector.safetensors" in manifest.files
    assert manifest.extra["deepspeed"]["zero_optimization"]["stage"] == 0
    assert result.metrics["steps"] == 6
    assert manifest.numbers == result.metrics
    assert {"final_loss", "validation_loss", "tokens_per_second", "seconds", "rows_left_out"} <= result.metrics.keys()
    page = (tmp_path / "report.html").read_text()
    for part in ("Loss", "Learning rate", "What it answers", "No row was left out"):
        assert part in page


@pytest.mark.slow
def test_bad_rows_stop_the_stage_or_are_left_out_and_counted(
    tiny_recipe: Path, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    shutil.copytree(tiny_world.root / "train2017", tmp_path / "images" / "train2017")
    rows = json.loads(tiny_world.pretrain_json.read_text())
    first, second = (tmp_path / "images" / row["image"] for row in rows[:2])
    first.unlink()
    second.write_bytes(second.read_bytes()[:100])
    rows[2]["conversations"][0]["value"] = "<image>\n<image>\nDescribe the image."
    data = tmp_path / "rows.json"
    data.write_text(json.dumps(rows))
    world = replace(tiny_world, root=tmp_path / "images")
    with pytest.raises(DataError) as caught:
        run(tiny_recipe, world, str(tmp_path / "strict"), data=str(data), overrides=overrides(max_bad_rows=0.02))
    for part in ("3 of 64 rows", "image-missing", "image-corrupt", "image-count", rows[0]["image"]):
        assert part in str(caught.value)
    assert not (tmp_path / "strict" / "projector").exists()

    result = run(tiny_recipe, world, str(tmp_path / "lenient"), data=str(data), overrides=overrides(max_bad_rows=0.05))
    assert result.metrics["rows_left_out"] == 3
    assert result.metrics["rows"] == 61
    lines = (tmp_path / "lenient" / "checkpoints" / "rows-left-out.jsonl").read_text().splitlines()
    assert {json.loads(line)["row"] for line in lines} == {0, 1, 2}
    assert "image-missing" in (tmp_path / "lenient" / "report.html").read_text()


@pytest.mark.slow
def test_two_ranks_with_everything_in_an_object_store(
    tiny_recipe: Path, tiny_world: TinyWorld, moto_s3: S3Server
) -> None:
    from llava import storage

    storage.upload(tiny_world.root / "train2017", f"{moto_s3.uri}/world/train2017")
    storage.upload(tiny_world.pretrain_json, f"{moto_s3.uri}/rows.json")
    out = f"{moto_s3.uri}/run"
    outputs = Outputs(
        projector=f"{out}/projector", checkpoints=f"{out}/checkpoints", report=f"{out}/report.html", metrics=f"{out}/m"
    )
    settings = Settings(
        recipe=str(tiny_recipe), images_uri=f"{moto_s3.uri}/world", processes="2", threads_per_process=1
    )
    result = STAGE.run(settings, Inputs(data=f"{moto_s3.uri}/rows.json"), outputs)
    kept = {item.path for item in storage.list_files(f"{out}/checkpoints")}
    folders = {path.split("/")[0] for path in kept if not path.startswith("row-check-")}  # the verdict lies beside them
    assert folders == {"step-00000004", "step-00000006"}
    again = STAGE.run(settings, Inputs(data=f"{moto_s3.uri}/rows.json"), outputs)  # a retried pod, after the end
    assert again.metrics["final_loss"] == result.metrics["final_loss"]
