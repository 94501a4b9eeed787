"""The expand stage from annotations to rows, offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from demo.world import write_world
from llava.errors import DataError, SettingsError
from llava.stages.expand import STAGE, Inputs, Outputs
from llava.stages.expand_settings import Settings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_world(root, train=40, held_out=4, seed=3)
    return root


def expand(world: Path, out: Path, **settings: Any) -> tuple[list[Any], list[Any], dict[str, float]]:
    outputs = Outputs(
        pretrain_data=str(out / "pretrain.json"),
        instruct_data=str(out / "instruct.json"),
        report=str(out / "report.html"),
        metrics=str(out / "metrics.json"),
    )
    given = {"annotations_uri": str(world / "annotations"), "images_uri": str(world), "image_prefix": "train2017"}
    result = STAGE.run(Settings(**{**given, **settings}), Inputs(), outputs)
    return (
        json.loads((out / "pretrain.json").read_text()),
        json.loads((out / "instruct.json").read_text()),
        result.metrics,
    )


def test_rows_for_both_stages(world: Path, tmp_path: Path) -> None:
    pretrain, instruct, metrics = expand(world, tmp_path)
    assert len(pretrain) == 40 and all(row["conversations"][0]["value"] == "<image>" for row in pretrain)
    assert metrics["rows_conversation"] == metrics["rows_detail"] == 40
    for row in [*pretrain, *instruct]:
        assert (world / row["image"]).is_file()
        assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"] * (len(row["conversations"]) // 2)
        assert "".join(turn["value"] for turn in row["conversations"]).count("<image>") == 1
        assert all(turn["value"].strip() for turn in row["conversations"])


@pytest.mark.slow
def test_the_same_settings_give_the_same_bytes(world: Path, tmp_path: Path) -> None:
    expand(world, tmp_path / "a")
    expand(world, tmp_path / "b")
    for name in ("pretrain.json", "instruct.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_answers_agree_with_the_captions(world: Path, tmp_path: Path) -> None:
    _, instruct, _ = expand(world, tmp_path, kinds="conversation")
    captions: dict[str, str] = {}
    for row in json.loads((world / "annotations/captions_train2017.json").read_text())["annotations"]:
        name = f"train2017/{row['image_id']:012d}.jpg"
        captions[name] = f"{captions.get(name, '')} {row['caption']}".lower()
    checked = 0
    for row in instruct:
        turns = [turn["value"] for turn in row["conversations"]]
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            question = question.removeprefix("<image>\n")
            if question.startswith("What color is the shape"):
                assert f" {answer} " in captions[row["image"]]
                assert question.removeprefix("What color is the shape ").rstrip("?") in captions[row["image"]]
                checked += 1
            elif question.startswith("Where is the "):
                assert f"{question.removeprefix('Where is the ').rstrip('?')} " in captions[row["image"]]
                checked += 1
    assert checked > 40


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("captions_train2017.json", "", "the file is empty"),
        ("captions_train2017.json", '{"images": []', "not JSON"),
        ("captions_train2017.json", '{"images": []}', "no list 'annotations'"),
        (
            "captions_train2017.json",
            '{"images": [], "annotations": []}',
            "captions_train2017.json: .* 'annotations' is empty",
        ),
        (
            "instances_train2017.json",
            '{"images": [], "annotations": []}',
            "instances_train2017.json: .* 'annotations' is empty",
        ),
        (
            "instances_train2017.json",
            '{"images": [], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1], "category_id": 1}]}',
            "no list 'categories'",
        ),
    ],
)
def test_broken_annotation_files_are_named(world: Path, tmp_path: Path, name: str, content: str, expected: str) -> None:
    folder = tmp_path / "annotations"
    folder.mkdir()
    for kept in (world / "annotations").glob("*train2017.json"):
        (folder / kept.name).write_bytes(kept.read_bytes())
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=expected):
        expand(world, tmp_path / "out", annotations_uri=str(folder))


def test_an_unknown_kind_names_those_known(world: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'poem'.*conversation, conversation-vision, detail, .*reasoning"):
        expand(world, tmp_path, kinds="poem")
