"""Naive pairs, regions, mixtures and files of rows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from llava.data.records import read_records
from llava.errors import DataError, SettingsError, StorageError, UserError
from llava.expansion.rows.mixture import load_mixture, mix
from llava.expansion.rows.naive import naive_rows
from llava.expansion.rows.regions import region_rows, written_box
from llava.expansion.rows.row import RowFile
from llava.expansion.sources.corpus import AnnotatedImage, Box
from llava.stages.expand import STAGE, Inputs, Outputs
from llava.stages.expand_settings import Settings

IMAGES = [
    AnnotatedImage(f"{k:012d}.jpg", k, 400, 200, tuple(f"caption {n} of {k}" for n in range(5))) for k in range(50)
]
OPTIONS: dict[str, Any] = {"questions": ["What is it?", "Describe it."], "seed": 0}


def test_plain_pairs_have_no_question() -> None:
    rows = list(naive_rows(IMAGES, with_question=False, image_position="before", captions_per_image=0, **OPTIONS))
    assert (
        len(rows) == 250 and {row.turns[0][0] for row in rows} == {"<image>"} and len({row.id for row in rows}) == 250
    )


@pytest.mark.parametrize(("position", "firsts"), [("before", {True}), ("after", {False}), ("random", {True, False})])
def test_order_of_question_and_image(position: Any, firsts: set[bool]) -> None:
    rows = list(naive_rows(IMAGES, with_question=True, image_position=position, captions_per_image=1, **OPTIONS))
    assert len(rows) == 50 and {row.turns[0][0].startswith("<image>\n") for row in rows} == firsts
    assert {row.turns[0][0].replace("<image>", "").strip() for row in rows} == set(OPTIONS["questions"])


def test_region_rows_speak_as_mix665k_does() -> None:
    boxes = (
        Box("dog", 40, 20, 100, 100),
        Box("cat", 10, 100, 60, 60),
        Box("cat", 300, 90, 60, 60),
        Box("fly", 1, 1, 2, 2),
    )
    images = [AnnotatedImage(f"{k}.jpg", k, 400, 200, (), boxes) for k in range(30)]
    rows = list(region_rows(images, frame="original", image_position="before", max_turns=6, seed=0))
    texts = {turn for row in rows for turn in row.turns}
    prefix = "Please provide the bounding box coordinate of the region this sentence describes: "
    assert (f"{prefix}the dog", "[0.10, 0.10, 0.35, 0.60]") in texts
    assert (
        "Please provide a short description for this region: [0.75, 0.45, 0.90, 0.75]",
        "the rightmost cat",
    ) in texts
    assert not any("fly" in part for turn in texts for part in turn), "too small to be seen"
    assert all(row.turns[0][0].startswith("<image>\nPlease provide") for row in rows)


def test_region_boxes_of_the_padded_square() -> None:
    image = AnnotatedImage("a.jpg", 1, 400, 200, (), (Box("dog", 0, 0, 400, 200),))
    assert written_box(image, image.boxes[0], "original") == "[0.00, 0.00, 1.00, 1.00]"
    assert written_box(image, image.boxes[0], "padded") == "[0.00, 0.25, 1.00, 0.75]"


def test_crowds_and_pairs_that_cannot_be_told_apart_give_no_region() -> None:
    close = (Box("cat", 10, 0, 90, 90), Box("cat", 20, 80, 90, 90))
    assert not list(
        region_rows(
            [AnnotatedImage("a.jpg", 1, 400, 200, (), close)],
            frame="original",
            image_position="before",
            max_turns=6,
            seed=0,
        )
    )
    crowd = (Box("cat", 10, 0, 90, 90, True),)
    assert not list(
        region_rows(
            [AnnotatedImage("a.jpg", 1, 400, 200, (), crowd)],
            frame="original",
            image_position="before",
            max_turns=6,
            seed=0,
        )
    )


def rows_file(path: Path, name: str, count: int) -> str:
    rows = [
        {
            "id": f"{name}{k}",
            "image": f"{name}{k}.jpg",
            "conversations": [{"from": "human", "value": "<image>\nQ"}, {"from": "gpt", "value": "A"}],
        }
        for k in range(count)
    ]
    path.write_text(json.dumps(rows))
    return str(path)


def mixture_of(tmp_path: Path, parts: list[dict[str, Any]], **more: Any) -> str:
    path = tmp_path / "mixture.yaml"
    path.write_text(yaml.safe_dump({"name": "test", "parts": parts, **more}))
    return str(path)


def test_a_mixture_weighs_limits_roots_and_shuffles(tmp_path: Path) -> None:
    generated = rows_file(tmp_path / "generated.json", "g", 40)
    rows_file(tmp_path / "gqa.json", "q", 100)
    kinds = ["detail"] * 10 + ["conversation"] * 30
    parts: list[dict[str, Any]] = [
        {"data": "generated:conversation", "weight": 2.5},
        {"data": "generated:detail"},
        {"data": "gqa.json", "limit": 20, "image_root": "gqa/images"},
    ]
    mixture = load_mixture(mixture_of(tmp_path, parts, seed=4))
    rows, counts = mix(mixture, generated, kinds)
    first = list(rows)
    assert [count.taken for count in counts] == [75, 10, 20] and len(first) == 105
    assert sum(row["image"].startswith("gqa/images/q") for row in first) == 20
    times = [sum(row["id"] == f"g{k}" for row in first) for k in range(40)]
    assert set(times[:10]) == {1} and set(times[10:]) == {2, 3}
    assert first == list(mix(mixture, generated, kinds)[0])
    assert first != list(mix(mixture.model_copy(update={"seed": 5}), generated, kinds)[0])
    assert [row["id"] for row in first] != sorted(row["id"] for row in first)


def test_faulty_mixtures_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="wieght: unknown field"):
        load_mixture(mixture_of(tmp_path, [{"data": "generated", "wieght": 2}]))
    generated = rows_file(tmp_path / "generated.json", "g", 4)
    with pytest.raises(DataError, match="'generated:poem' has no rows; generated kinds: detail"):
        mix(load_mixture(mixture_of(tmp_path, [{"data": "generated:poem"}])), generated, ["detail"] * 4)
    (tmp_path / "bad.json").write_text('[{"id": "x", "image": "a.jpg", "conversations": []}]')
    with pytest.raises(DataError, match="1 of 1 rows cannot be used"):
        mix(load_mixture(mixture_of(tmp_path, [{"data": "bad.json"}])), generated, ["detail"] * 4)


def test_the_stage_with_regions_mixture_blocklist_and_an_own_list(world: Path, tmp_path: Path) -> None:
    rows_file(tmp_path / "extra.json", "x", 5)
    (tmp_path / "blocked.txt").write_text("1\n2\n000000000003.jpg\n")
    mixture = mixture_of(
        tmp_path, [{"data": "generated:region"}, {"data": "generated:naive", "limit": 7}, {"data": "extra.json"}]
    )
    outputs = Outputs(
        **{name: str(tmp_path / name) for name in ("pretrain_data", "instruct_data", "report", "metrics")}
    )
    settings = Settings(
        annotations_uri=str(world / "annotations"),
        images_uri=str(world),
        image_prefix="train2017",
        kinds="naive,region,detail",
        mixture=mixture,
        blocklist_uri=str(tmp_path / "blocked.txt"),
    )
    metrics = STAGE.run(settings, Inputs(), outputs).metrics
    assert metrics["blocked_images"] == 3 and metrics["rows_pretrain"] == 57
    records = read_records(outputs.instruct_data)
    assert not records.problems and len(records.records) == metrics["rows_instruct"] == metrics["rows_region"] + 7 + 5
    used = {
        int(match.group(1)) for record in records.records if (match := re.search(r"(\d{12})\.jpg", record.images[0]))
    }
    assert not used & {1, 2, 3}
    card = Path(f"{outputs.instruct_data}.card.md").read_text()
    assert "| detail | 57 | 0 |" in card and "block-list of evaluation sets: 3" in card
    html = Path(outputs.report).read_text()
    assert "<rect" in html and "There are three shapes" in html and not re.search(r'(?:src|href)="(?!data:|#)', html)
    provenance = [
        json.loads(line) for line in Path(f"{outputs.instruct_data}.provenance.jsonl").read_text().splitlines()
    ]
    assert len(provenance) == metrics["rows_naive"] + metrics["rows_region"] + metrics["rows_detail"]


def test_a_row_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"

    def fail() -> None:
        with RowFile(str(path)) as file:
            file.add({"a": 1})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with RowFile(str(path)):
        pass
    assert json.loads(path.read_text()) == []


@pytest.mark.parametrize("weight", ["1.0e12", ".inf", ".nan", "-1", "9" * 400])
def test_a_weight_that_no_mixture_can_have_is_refused(weight: str, tmp_path: Path) -> None:
    (tmp_path / "mixture.yaml").write_text(f"name: x\nparts: [{{data: generated, weight: {weight}}}]\n")
    with pytest.raises(UserError, match="weight|finite|64 bits"):
        load_mixture(str(tmp_path / "mixture.yaml"))


def write_to_a_full_disk(path: Path, rows: int) -> None:
    """/dev/full refuses every byte, as a full disk does; few rows are refused when the buffer is written at the end."""
    with open("/dev/full", "w") as full, RowFile(str(path)) as file:
        file._file.close()
        file._file = full
        for number in range(rows):
            file.add({"id": str(number), "text": "x" * 100})


@pytest.mark.parametrize("rows", [1, 10_000])
def test_a_full_disk_is_said_in_words_and_leaves_no_half_file(rows: int, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the disk is full"):
        write_to_a_full_disk(tmp_path / "rows.json", rows)
    assert list(tmp_path.iterdir()) == []
