"""`llava init`: the file it writes is one that `pipeline.py run` takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from llava import cli
from llava.evaluation.benchmarks import get_benchmark
from llava.pipelines.options import read_parameters
from llava.pipelines.parameters import require_sound_run

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number in range(30):
        Image.new("RGB", (40, 30)).save(tmp_path / f"photos/IMG_{number:04d}.JPG")
    (tmp_path / "captions.csv").write_text("image,caption\nIMG_0000.JPG,A black photograph.\n")
    row = {"id": "1", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    return tmp_path


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["init", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_captions_make_a_full_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--images", "photos", "--annotations", "captions.csv", "--steps", "40") == 0
    shown = capsys.readouterr().out
    assert "llava pipeline run --params run.yaml" in shown
    values = require_sound_run("full", read_parameters("run.yaml", None), here=True)
    assert json.loads(values["finetune_overrides"])["finetune.max_steps"] == 40
    assert values["train_accelerators"] == "0"
    questions = get_benchmark("custom").read("questions.jsonl")
    assert len(questions) == 12 and all(Path("photos", *question.images).exists() for question in questions)
    comments = [line for line in (folder / "run.yaml").read_text().splitlines() if line.startswith("#")]
    assert len(comments) > 10


def test_own_rows_begin_with_stage_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--images", "photos", "--rows", "rows.json", "--gpus", "8", "--out", "deep/run.yaml") == 0
    assert "--package from-pretrain" in capsys.readouterr().out
    read = yaml.safe_load((folder / "deep/run.yaml").read_text())
    assert read["recipe"] == "llava-v1.5-7b" and read["train_accelerators"] == "8"
    assert read["pretrain_data_uri"] == read["instruct_data_uri"] == "rows.json"
    require_sound_run("from-pretrain", read_parameters("deep/run.yaml", None), here=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--images", "photos"], "--annotations"),
        (["--images", "photo", "--annotations", "captions.csv"], "did you mean photos?"),
        (["--images", "photos", "--annotations", "caption.csv"], "did you mean captions.csv?"),
        (["--images", "photos", "--annotations", "captions.csv", "--recipe", "tinny"], "did you mean tiny?"),
        (["--images", "photos", "--annotations", "captions.csv", "--rows", "rows.json"], "one of"),
        (["--images", "photos", "--annotations", "captions.csv", "--questions", "gone"], "--questions: gone"),
        (["--images", ".", "--annotations", "captions.csv", "--out", "captions.csv"], "--force"),
    ],
)
def test_what_cannot_be_is_said(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "run.yaml").exists()
