"""`llava data`: what a person sees of a dataset before paying for a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llava import cli
from llava.data.images import ImageSource
from llava.data.records import read_records
from tests.data.test_check import ROWS
from tests.data.test_images import JPEG
from tests.data.test_preprocess import encoded, picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ok.jpg").write_bytes(JPEG)
    (tmp_path / "wide.jpg").write_bytes(encoded(picture(90, 30), "JPEG"))
    (tmp_path / "cut.jpg").write_bytes(JPEG[:300])
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    return tmp_path


def call(*arguments: str) -> int:
    """Exit status of `llava data ...`."""
    try:
        cli.main(["data", *arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_check_reports_repairs_and_cleans(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out"
    files = {name: str(out / name) for name in ("repairs.jsonl", "clean.json", "report.html")}
    status = call(
        *("check", "--data", str(folder / "rows.json"), "--images", str(folder), "--max-bad-rows", "0.5"),
        *("--repairs", files["repairs.jsonl"], "--clean", files["clean.json"], "--report", files["report.html"]),
    )
    shown = capsys.readouterr()
    assert status == 0
    assert "5 of 10 rows usable, 2 images" in shown.out
    assert "image-missing" in shown.out
    repairs = [json.loads(line) for line in (out / "repairs.jsonl").read_text().splitlines()]
    assert [(line["row"], line["problem"]) for line in repairs] == [
        (1, "image-missing"),
        (2, "image-corrupt"),
        (3, "image-count"),
        (6, "image-missing"),
        (9, "image-path"),
    ]
    assert all(line["expected"] and line["found"] for line in repairs)
    cleaned = read_records(files["clean.json"])
    assert not cleaned.problems
    assert [record.id for record in cleaned.records] == ["0", "4", "5", "7", "8"]
    html = (out / "report.html").read_text()
    assert "Dataset check" in html
    assert "absent.jpg" in html


def test_check_stops_above_the_threshold(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("check", "--data", str(folder / "rows.json"), "--images", str(folder), "--quick") == 2
    assert "5 of 10 rows (50.00%) cannot be used; at most 0.00% may be" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "--data", "absent.json"), "absent.json: no such file"),
        (("check", "--data", "ROWS", "--recipe", "nonsense"), "recipe: found 'nonsense'; expected one of"),
    ],
)
def test_wrong_arguments_are_said_in_one_line(
    folder: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*(str(folder / "rows.json") if part == "ROWS" else part for part in arguments)) == 2
    assert message in capsys.readouterr().err


def test_check_with_a_recipe_encodes_every_row(
    tiny_world: Any, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.html"
    images = ("--images", str(tiny_world.images_uri), "--recipe", str(tiny_recipe))
    assert call("check", "--data", str(tiny_world.instruct_json), *images, "--report", str(report)) == 0
    shown = capsys.readouterr().out
    assert "64 of 64 rows usable" in shown
    assert "tokens a row" in shown
    assert "Trained tokens a row" in report.read_text()
    too_short = ("--overrides", '{"finetune.max_length": 40}')
    assert call("check", "--data", str(tiny_world.instruct_json), *images, *too_short) == 2
    assert "no-labels" in capsys.readouterr().err


def test_packed_images_are_the_images(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "packed"
    rows = [row for row in ROWS if row["id"] in ("0", "4", "5")]
    (folder / "good.json").write_text(json.dumps(rows))
    assert call("pack", "--data", str(folder / "good.json"), "--images", str(folder), "--out", str(out)) == 0
    assert "2 images" in capsys.readouterr().out
    for name in ("ok.jpg", "wide.jpg"):
        assert ImageSource(str(out)).read(name) == (folder / name).read_bytes()
    assert call("check", "--data", str(folder / "good.json"), "--images", str(out), "--max-bad-rows", "0.3") == 0


def test_images_that_cannot_be_packed_are_named_or_stop_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("pack", "--data", str(folder / "rows.json"), "--images", str(folder), "--out", str(folder / "packed"))
    assert call(*arguments) == 2
    assert "1 of 5 images cannot be packed, more than max_bad_images = 0 allows" in capsys.readouterr().err
    assert call(*arguments, "--max-bad-images", "0.7") == 0
    said = capsys.readouterr().out
    # What is no image is never copied into a shard, whatever it is called.
    assert "left out: absent.jpg" in said and "left out: cut.jpg" in said
