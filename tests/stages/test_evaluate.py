"""The evaluation stage from its settings to its report, on a tiny saved model; killed and resumed; with bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llava import storage
from llava.errors import DataError, SettingsError
from llava.manifest import read_manifest
from llava.stages.evaluate import Inputs, Outputs, Settings, run
from llava.stages.stage import StageResult
from tests.conftest import TinyWorld
from tests.hub_model import HubModel
from tests.s3_server import S3Server


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def evaluate(model: HubModel, world: TinyWorld, questions: Path, out: str, **settings: Any) -> StageResult:
    chosen = {"questions_uri": str(questions), "images_uri": world.images_uri, "batch_size": 8, "max_new_tokens": 6}
    inputs = Inputs(model=str(model.model), projector=str(model.projector))
    outputs = Outputs(predictions=f"{out}/predictions", report=f"{out}/report.html", metrics=f"{out}/metrics")
    return run(Settings(**{**chosen, **settings}), inputs, outputs)


@pytest.mark.slow
def test_three_models_are_asked_and_scored(hub_model: HubModel, tiny_world: TinyWorld, tmp_path: Path) -> None:
    evaluate(hub_model, tiny_world, tiny_world.questions, str(tmp_path / "first"))
    first = rows_of(tmp_path / "first/predictions/finetuned.jsonl")
    assert [row["id"] for row in first] == [str(row["question_id"]) for row in rows_of(tiny_world.questions)]
    assert len({row["answer"] for row in first}) > 2
    # The right answers are now what the model says, in other case and with a period; every third one is another.
    known = tmp_path / "known.jsonl"
    rows = rows_of(tiny_world.questions)
    for number, (row, answer) in enumerate(zip(rows, first, strict=True)):
        row["answer"] = "something else" if number % 3 == 2 else answer["answer"].upper() + "."
    known.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = evaluate(hub_model, tiny_world, known, str(tmp_path / "second"))
    right = sum(number % 3 != 2 for number in range(len(rows)))
    assert result.metrics["accuracy"] == pytest.approx(right / len(rows))
    assert result.metrics["accuracy_low"] < right / len(rows) < result.metrics["accuracy_high"]
    assert result.metrics["questions"] == len(rows)
    assert {f"accuracy_{kind}" for kind in ("colour", "shape", "position", "count", "presence", "size")} <= set(
        result.metrics
    )
    for name in ("blank", "stage1"):
        answers = [row["answer"] for row in rows_of(tmp_path / f"second/predictions/{name}.jsonl")]
        assert answers != [row["answer"] for row in first]
        same = sum(row["scores"]["llava-1.5"] for row in rows_of(tmp_path / f"second/predictions/{name}.jsonl"))
        assert result.metrics[f"accuracy_{name}"] == pytest.approx(same / len(rows))
        gain = result.metrics["accuracy"] - result.metrics[f"accuracy_{name}"]
        assert result.metrics[f"gain_over_{name}"] == pytest.approx(gain)
    report = (tmp_path / "second/report.html").read_text()
    assert "fine-tuned" in report and "image blanked" in report and "stage 1" in report and "data:image/" in report
    assert storage.read_json(str(tmp_path / "second/predictions/summary.json")) == result.metrics
    manifest = read_manifest(str(tmp_path / "second/predictions"))
    assert manifest.parents == {"model": str(hub_model.model), "projector": str(hub_model.projector)}
    assert not list((tmp_path / "second/predictions").glob("*.parts"))


@pytest.mark.slow
def test_answers_do_not_depend_on_the_batch(hub_model: HubModel, tiny_world: TinyWorld, tmp_path: Path) -> None:
    for size in (1, 7):
        evaluate(hub_model, tiny_world, tiny_world.questions, str(tmp_path / str(size)), batch_size=size, limit=10)
    for name in ("finetuned", "blank", "stage1"):
        answers = [rows_of(tmp_path / size / "predictions" / f"{name}.jsonl") for size in ("1", "7")]
        assert [row["answer"] for row in answers[0]] == [row["answer"] for row in answers[1]]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_asks_nothing_twice(
    hub_model: HubModel, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    evaluate(hub_model, tiny_world, tiny_world.questions, str(whole), batch_size=1)
    command = [str(Path(sys.executable).parent / "llava"), "evaluate", "--model", str(hub_model.model)]
    command += ["--projector", str(hub_model.projector), "--questions-uri", str(tiny_world.questions)]
    command += [
        "--images-uri",
        tiny_world.images_uri,
        "--batch-size",
        "1",
        "--max-new-tokens",
        "6",
        "--out",
        str(killed),
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=os.environ)
    try:
        deadline = time.monotonic() + 120
        while len(list(killed.glob("predictions/finetuned-*.parts/*.jsonl"))) < 5:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    left = {path: path.stat().st_mtime_ns for path in killed.glob("predictions/*.parts/*.jsonl")}
    assert 5 <= len(left) < len(rows_of(tiny_world.questions))
    log = tmp_path / "log.jsonl"
    done = subprocess.run(
        command, env={**os.environ, "LLAVA_RUN_LOG": str(log)}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    notes = [row["text"] for row in rows_of(log) if row["event"] == "note"]
    assert f"fine-tuned: {len(left)} answers found, resuming after them" in notes
    for name in ("finetuned", "blank", "stage1"):
        assert rows_of(killed / f"predictions/{name}.jsonl") == rows_of(whole / f"predictions/{name}.jsonl")


@pytest.mark.slow
def test_predictions_may_lie_in_an_object_store(
    hub_model: HubModel,
    tiny_world: TinyWorld,
    rclone_s3: S3Server,
    tmp_path: Path,
) -> None:
    storage.upload(hub_model.model, f"{rclone_s3.uri}/model")
    out = Outputs(predictions=f"{rclone_s3.uri}/p", report=f"{rclone_s3.uri}/report.html", metrics=str(tmp_path / "m"))
    settings = Settings(
        questions_uri=str(tiny_world.questions), images_uri=tiny_world.images_uri, limit=5, max_new_tokens=4
    )
    for _ in range(2):  # the second time every answer is already there
        result = run(settings, Inputs(model=f"{rclone_s3.uri}/model"), out)
        assert result.metrics["questions"] == 5
    assert sorted(item.path for item in storage.list_files(out.predictions)) == [
        "blank.about.json",
        "blank.jsonl",
        "finetuned.about.json",
        "finetuned.jsonl",
        "manifest.json",
        "summary.json",
    ]
    assert storage.read_text(out.report).startswith("<!doctype html>")


def test_missing_and_broken_pictures_are_counted_and_above_the_threshold_stop_the_stage(
    hub_model: HubModel,
    tiny_world: TinyWorld,
    tmp_path: Path,
) -> None:
    rows = rows_of(tiny_world.questions)[:8]
    rows[1]["image"] = "val2017/absent.jpg"
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff torn")
    rows[5]["image"] = (tmp_path / "torn.jpg").as_uri()
    questions = tmp_path / "q.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    images = f"{tiny_world.images_uri},{tmp_path}"
    with pytest.raises(DataError, match="2 of 8 questions have no usable image, more than max_bad_rows") as caught:
        evaluate(hub_model, tiny_world, questions, str(tmp_path / "strict"), blank_baseline=False, images_uri=images)
    assert "absent.jpg" in str(caught.value)
    result = evaluate(
        hub_model, tiny_world, questions, str(tmp_path / "lax"),
        blank_baseline=False, max_bad_rows=0.5, images_uri=images,
    )  # fmt: skip
    assert result.metrics["questions"] == 6 and result.metrics["questions_left_out"] == 2
    report = (tmp_path / "lax/report.html").read_text()
    assert "image-missing" in report and "image-corrupt" in report


@pytest.mark.slow
def test_no_answer_at_all_is_an_error_and_no_right_answer_is_said(
    hub_model: HubModel, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    rows = rows_of(tiny_world.questions)[:5]
    for row in rows:
        del row["answer"]
    questions = tmp_path / "q.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = evaluate(hub_model, tiny_world, questions, str(tmp_path / "predicted"))
    assert (result.metrics["questions"], result.metrics["questions_scored"]) == (5, 0)
    assert len(rows_of(tmp_path / "predicted/predictions/finetuned.jsonl")) == 5
    page = (tmp_path / "predicted/report.html").read_text()
    assert "The right answers to these questions are not known here, so there are no scores" in page
    questions.write_text(questions.read_text().replace(".jpg", ".absent.jpg"))
    with pytest.raises(DataError, match="5 of 5 questions have no usable image, so nothing was answered and there is"):
        evaluate(hub_model, tiny_world, questions, str(tmp_path / "none"), max_bad_rows=1.0)


def test_wrong_settings_say_what_would_be_right(hub_model: HubModel, tiny_world: TinyWorld, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="benchmark: found 'wrold'; expected one of .*custom"):
        evaluate(hub_model, tiny_world, tiny_world.questions, str(tmp_path), benchmark="wrold")
    with pytest.raises(SettingsError, match="model: "):
        evaluate(HubModel(tmp_path, tmp_path), tiny_world, tiny_world.questions, str(tmp_path))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(DataError, match="no questions in it"):
        evaluate(hub_model, tiny_world, empty, str(tmp_path))
