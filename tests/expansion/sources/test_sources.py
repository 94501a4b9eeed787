"""Annotations of every form, whole and broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.errors import DataError
from llava.expansion.sources import json_stream
from llava.expansion.sources.corpus import AnnotatedImage
from llava.expansion.sources.json_stream import JsonStream
from llava.expansion.sources.opening import open_corpus

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def stream(text: str, path: Path) -> list[tuple[str, int, Any]]:
    path.write_text(text, encoding="utf-8")
    return list(JsonStream(path, "file.json"))


@settings(max_examples=150, deadline=None)
@given(
    data=st.dictionaries(st.text(max_size=5), JSON, max_size=4),
    indent=st.sampled_from([None, 1]),
    chunk=st.integers(1, 40),
)
def test_the_stream_reads_what_json_reads(
    data: dict[str, Any], indent: int | None, chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "stream.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK_CHARS", chunk)
        found: dict[str, Any] = {}
        for key, index, value in stream(json.dumps(data, indent=indent, ensure_ascii=False), path):
            if index == -2:
                found[key] = []
            elif index == -1:
                found[key] = value
            else:
                assert len(found[key]) == index
                found[key].append(value)
    assert found == data


@pytest.mark.parametrize(
    "text", ["", "  ", "{", '{"a": [1, 2', '{"a": [1 2]}', '{"a": 1,}', "nothing", '{"a": 1} x', "[1,]"]
)
def test_the_stream_names_what_is_broken(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"file\.json: (not JSON at character \d+|the file is empty)"):
        stream(text, tmp_path / "broken.json")


def coco(
    folder: Path, year: str, captions: list[Any], boxes: list[Any] | None = None, name: str = "{:012d}.jpg"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    images = [{"id": k, "file_name": name.format(k), "width": 200, "height": 100} for k in (7, 3)]
    (folder / f"captions_{year}.json").write_text(json.dumps({"images": images, "annotations": captions}))
    if boxes is not None:
        categories = [{"id": 5, "name": "dog"}]
        data = {"annotations": boxes, "categories": categories, "images": images}
        (folder / f"instances_{year}.json").write_text(json.dumps(data))
    return folder


CAPTIONS = [{"image_id": k, "id": n, "caption": f" caption {n}\n of {k} "} for n, k in enumerate((7, 3, 7))]
BOXES = [{"image_id": 7, "category_id": 5, "bbox": [20, 10, 100.5, 50], "iscrowd": 0, "segmentation": [[1, 2]]}]


@pytest.mark.parametrize(("year", "name"), [("train2017", "{:012d}.jpg"), ("train2014", "COCO_train2014_{:012d}.jpg")])
def test_coco_of_both_years(tmp_path: Path, year: str, name: str) -> None:
    folder = coco(tmp_path, year, CAPTIONS, BOXES, name)
    corpus = open_corpus(str(folder), split="train", image_prefix=year)
    three, seven = list(corpus)
    assert (three.image_id, seven.image_id) == (3, 7)
    assert seven.path == f"{year}/{name.format(7)}"
    assert seven.captions == ("caption 0 of 7", "caption 2 of 7") and three.boxes == ()
    assert seven.boxes[0].category == "dog" and seven.corners(seven.boxes[0], 3) == (0.1, 0.1, 0.603, 0.6)
    assert [image.path for image in open_corpus(str(folder), split="train", image_prefix="", limit=1)] == [
        name.format(3)
    ]


def test_a_box_around_a_crowd_is_known_as_one(tmp_path: Path) -> None:
    boxes = [*BOXES, {**BOXES[0], "iscrowd": 1, "segmentation": {"counts": [1], "size": [1, 1]}}]
    _, seven = list(open_corpus(str(coco(tmp_path, "train2017", CAPTIONS, boxes)), split="train", image_prefix=""))
    assert [box.crowd for box in seven.boxes] == [False, True]


def test_two_years_in_one_folder_need_a_choice(tmp_path: Path) -> None:
    coco(tmp_path, "train2014", CAPTIONS)
    coco(tmp_path, "train2017", CAPTIONS)
    with pytest.raises(DataError, match="say which with split, e.g. train2017"):
        open_corpus(str(tmp_path), split="train", image_prefix="")
    assert len(open_corpus(str(tmp_path), split="train2014", image_prefix="")) == 2


def test_broken_rows_are_counted_with_their_class(tmp_path: Path) -> None:
    captions = [
        *CAPTIONS,
        {"image_id": 7},
        {"image_id": 99, "caption": "of nothing"},
        "text",
        {"image_id": 3, "caption": "  "},
    ]
    boxes = [
        *BOXES,
        {"image_id": 7, "category_id": 5, "bbox": [1, 2, 0, 4]},
        {"image_id": 7, "category_id": 5, "bbox": [1, 2]},
    ]
    corpus = open_corpus(str(coco(tmp_path, "train2017", captions, boxes)), split="train", image_prefix="")
    classes = sorted(problem.problem for problem in corpus.problems)
    assert classes == ["box-row", "box-row", "caption-row", "caption-row", "caption-row", "image-unknown"]
    assert corpus.rows_read == len(captions) + len(boxes) and sum(len(image.boxes) for image in corpus) == 1
    assert "captions_train2017.json: row 3: annotations" in str(corpus.problems[0])


META = {
    "url": "https://ak1.ostkcdn.com/images/products/11932255/P18821274.jpg",
    "blip_caption": "a grey watch with an army style strap",
    "image": "00223/002239345.jpg",
    "id": "002239345",
}
ROW = {
    "conversations": [
        {"from": "human", "value": "Write a terse but informative summary of the image.\n<image>"},
        {"from": "gpt", "value": "a grey watch with an army style strap"},
    ],
    "image": "00223/002239345.jpg",
    "id": "002239345",
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("blip_laion_cc_sbu_558k_meta.json", json.dumps([META])),
        ("blip_laion_cc_sbu_558k.json", json.dumps([ROW])),
        ("list.json", json.dumps([{"image": META["image"], "caption": META["blip_caption"]}])),
        ("list.jsonl", json.dumps({"image": META["image"], "captions": [META["blip_caption"]]}) + "\n"),
        ("list.csv", f"image,caption\n{META['image']},{META['blip_caption']}\n"),
        ("list.tsv", f"image\tcaption\n{META['image']}\t{META['blip_caption']}\n"),
    ],
)
def test_lists_of_every_form(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    corpus = open_corpus(str(tmp_path / name), split="train", image_prefix="")
    assert list(corpus) == [
        AnnotatedImage("00223/002239345.jpg", None, 0, 0, ("a grey watch with an army style strap",))
    ]


def test_lists_group_captions_and_report_bad_rows(tmp_path: Path) -> None:
    rows = [
        {"image": "a.jpg", "caption": "one"},
        {"image": "b.jpg"},
        {"image": "a.jpg", "caption": "two"},
        {"caption": "x"},
        3,
    ]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    corpus = open_corpus(str(tmp_path / "list.json"), split="train", image_prefix="images")
    assert [(image.path, image.captions) for image in corpus] == [("images/a.jpg", ("one", "two"))]
    assert [problem.problem for problem in corpus.problems] == ["caption-row", "image-field", "row-type"]


def test_a_folder_without_annotations_says_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"no captions_train\*\.json; found notes\.txt"):
        open_corpus(str(tmp_path), split="train", image_prefix="")
