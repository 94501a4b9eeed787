"""What a run leaves behind: figures, one page, links, a line in the list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pipeline
from llava import storage
from llava.local.leavings import leave, listed, runs_below, table
from llava.local.run import RunOutput, RunRecord
from llava.pipelines.commands import main


def record_in(root: Path, run: str, finished: float, accuracy: float) -> RunRecord:
    outputs = {}
    for stage, numbers in {
        "pretrain": {"final_loss": 2.5, "rows": 30.0},
        "finetune": {"final_loss": 1.25, "rows": 90.0},
        "evaluate": {"accuracy": accuracy, "questions": 12.0},
    }.items():
        place = root / run / stage
        place.mkdir(parents=True)
        (place / "report.html").write_text(f"<p>{stage}</p>")
        metadata = {**numbers, "stage_seconds": 3.0, "stage": stage}
        outputs[f"{stage}_metrics"] = RunOutput(
            uri=str(place / "metrics"), metadata=metadata, cached=stage == "pretrain"
        )
        outputs[f"{stage}_report"] = RunOutput(uri=str(place / "report.html"), metadata={}, cached=False)
    (root / run / "finetune/model").mkdir()
    outputs["model"] = RunOutput(uri=str(root / run / "finetune/model"), metadata={}, cached=False)
    outputs["onnx"] = RunOutput(uri="s3://bucket/onnx", metadata={}, cached=False)
    record = RunRecord(
        pipeline="llava-full",
        run=run,
        arguments={},
        outputs=outputs,
        ran=["finetune"],
        seconds=61.0,
        finished_unix=finished,
    )
    storage.write_json(str(root / run / "run.json"), record.model_dump(mode="json"))
    return record


def test_the_last_run_is_where_it_can_be_remembered(tmp_path: Path) -> None:
    leave(record_in(tmp_path, "run-a", 1_700_000_000, 0.5), tmp_path)
    summary = leave(record_in(tmp_path, "run-b", 1_700_000_100, 0.75), tmp_path)
    assert (tmp_path / "model").resolve() == (tmp_path / "run-b/finetune/model").resolve()
    assert not (tmp_path / "onnx").exists(), "an artifact in a store has no link"
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written == summary and written["run"] == "run-b"
    assert written["stages"]["evaluate"]["metrics"] == {"accuracy": 0.75, "questions": 12.0}
    page = (tmp_path / "report.html").read_text()
    for stage in ("pretrain", "finetune", "evaluate"):
        assert f'href="run-b/{stage}/report.html"' in page and (tmp_path / f"run-b/{stage}/report.html").exists()
    text = table(summary, tmp_path)
    assert (
        "cached" in text and "accuracy 0.75" in text and str(tmp_path / "model") in text and "s3://bucket/onnx" in text
    )


def test_a_folder_of_ones_own_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.txt").write_text("mine")
    leave(record_in(tmp_path, "run-a", 1_700_000_000, 0.5), tmp_path)
    assert (tmp_path / "model/mine.txt").read_text() == "mine"


def test_runs_are_listed_newest_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_in(tmp_path / "one", "run-a", 1_700_000_000, 0.5)
    record_in(tmp_path / "two", "run-b", 1_700_000_100, 0.75)
    (tmp_path / "three").mkdir()
    (tmp_path / "three/run.json").write_text("not a record")
    assert [record.run for record in runs_below(str(tmp_path))] == ["run-b", "run-a"]
    assert main(pipeline.build, ["list", "--root", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1].startswith("run-b") and "2023-11-14 22:15" in shown[1] and "evaluate accuracy 0.75" in shown[1]
    assert shown[2].startswith("run-a") and len(shown) == 3
    assert listed([]).splitlines()[1:] == []


def test_a_folder_without_runs_says_what_makes_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(pipeline.build, ["list", "--root", str(tmp_path)]) == 0
    assert "llava pipeline run" in capsys.readouterr().out
    assert main(pipeline.build, ["list", "--root", str(tmp_path / "gone")]) == 2
