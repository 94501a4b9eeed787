"""COCO and its kin told by content: Roboflow's export, captions alone, LVIS, Objects365."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llava.errors import DataError, SettingsError
from llava.expansion.job import open_job
from llava.expansion.rows.regions import describe_boxes
from llava.expansion.sources.corpus import AnnotatedImage
from tests.expansion.sources.corpora import ROBOFLOW, corpus, opened, put


def test_roboflows_export_is_found_in_its_split_and_has_boxes_alone(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        put(tmp_path / split / "_annotations.coco.json", ROBOFLOW)
    put(tmp_path / "README.roboflow.txt", "a data set")
    for uri, split in ((tmp_path, "train"), (tmp_path, "val"), (tmp_path / "valid", "train")):
        (image,) = opened(uri, "animals", split=split)
        assert (image.path, image.captions) == ("animals/a_jpg.rf.0f1e.jpg", ())
        assert image.image_id is None  # its 0 is no id of COCO, and blocks no image of an evaluation set
        assert image.boxes[0].category == "cat" and image.boxes[0].width == 320.5


def test_a_coco_image_is_known_under_roboflows_name(tmp_path: Path) -> None:
    images = [{**ROBOFLOW["images"][0], "file_name": "000000397133_jpg.rf.0f1e.jpg"}]  # type: ignore[index]
    (image,) = opened(put(tmp_path / "x.json", {**ROBOFLOW, "images": images}))
    assert image.image_id == 397133


def job_of(folder: Path, kinds: str) -> Any:
    return open_job(
        annotations_uri=str(folder), split="train", image_prefix="", kinds=kinds, expansion_recipe="coco", model="m",
        limit=0, seed=0, blocklist_uri="", max_bad_rows=0.0,
    )  # fmt: skip


def test_boxes_alone_are_for_regions_and_the_rest_is_said(tmp_path: Path) -> None:
    put(tmp_path / "train.json", ROBOFLOW)
    with pytest.raises(
        SettingsError, match=r"conversation, detail would give no row: the annotations have no captions"
    ):
        job_of(tmp_path, "conversation,detail")
    job = job_of(tmp_path, "region,conversation")
    assert any("conversation will give no row" in warning for warning in job.warnings)
    assert any("pretrain_data is empty" in warning for warning in job.warnings)


def test_a_missing_instances_file_is_said(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "000000000007.jpg", "width": 10, "height": 10}]
    rows = [{"id": 1, "image_id": 7, "caption": "A cat."}]
    put(tmp_path / "captions_train2017.json", {"images": images, "annotations": rows})
    (warning,) = job_of(tmp_path, "conversation,detail").warnings
    assert "no boxes" in warning and "detail" in warning and "instances_*.json" in warning
    assert job_of(tmp_path, "conversation").warnings == ()


def test_captions_of_any_name_are_coco_by_content(tmp_path: Path) -> None:
    rows = [{"id": 1, "image_id": 7, "caption": "A cat."}]
    put(tmp_path / "licence.json", {"text": "free"})
    put(
        tmp_path / "mine.json",
        {"annotations": rows, "images": [{"id": 7, "file_name": "x.jpg", "width": 9, "height": 8}]},
    )
    (image,) = opened(tmp_path)
    assert image == AnnotatedImage("x.jpg", None, 9, 8, ("A cat.",))


def test_lvis_names_images_by_address_and_categories_for_machines(tmp_path: Path) -> None:
    # lvis_v1_val.json: no file_name; boxes of some categories are not exhaustive; names as the file has them
    images = [
        {"id": 397133, "coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg", "height": 427,
         "width": 640, "not_exhaustive_category_ids": [2], "neg_category_ids": [9]},
    ]  # fmt: skip
    categories = [{"id": 1, "name": "cap_(headwear)", "frequency": "f"}, {"id": 2, "name": "wine_bottle"}]
    rows = [
        {
            "id": k,
            "image_id": 397133,
            "category_id": k,
            "bbox": [10 * k, 9.0, 200.0, 200.0],
            "area": 1,
            "segmentation": [],
        }
        for k in (1, 2)
    ]
    path = put(tmp_path / "lvis_v1_val.json", {"images": images, "annotations": rows, "categories": categories})
    for prefix, wanted in (("", "val2017/"), ("coco", "coco/val2017/"), ("coco/train2017", "coco/val2017/")):
        found = corpus(path, prefix)
        (image,) = found
        assert (image.path, image.image_id) == (f"{wanted}000000397133.jpg", 397133)
    # only some categories are annotated in each image: what has no box may be there, so gates have nothing to go by
    assert found.categories == ()
    # there may be other bottles than this one, so "the wine bottle" may be another
    assert [text for text, _ in describe_boxes(image)] == ["the cap"]


def test_lvis_boxes_come_with_cocos_captions(tmp_path: Path) -> None:
    shape = {"width": 640, "height": 427}
    url = "http://images.cocodataset.org/train2017/000000000009.jpg"
    boxes = [{"id": 1, "image_id": 9, "category_id": 1, "bbox": [1, 1, 50, 50]}]
    lvis = {
        "images": [{"id": 9, "coco_url": url, **shape}],
        "annotations": boxes,
        "categories": [{"id": 1, "name": "cup"}],
    }
    captions = {
        "images": [{"id": 9, "file_name": "000000000009.jpg", **shape}],
        "annotations": [{"image_id": 9, "caption": "Cups."}],
    }
    uris = f"{put(tmp_path / 'captions_train2017.json', captions)},{put(tmp_path / 'lvis_v1_train.json', lvis)}"
    (image,) = opened(uris, "train2017")
    assert (image.path, image.captions, len(image.boxes)) == ("train2017/000000000009.jpg", ("Cups.",), 1)


def test_objects365_marks_what_is_not_real(tmp_path: Path) -> None:
    images = [
        {
            "id": 900001,
            "file_name": "images/v1/patch8/objects365_v1_00900001.jpg",
            "height": 512,
            "width": 769,
            "license": 5,
        }
    ]
    rows = [
        {"id": 1, "image_id": 900001, "category_id": 1, "iscrowd": 0, "isfake": fake, "isreflected": 0, "area": 9.0,
         "bbox": [212.5, 77.25, 130.0, 140.0]} for fake in (0, 1)
    ]  # fmt: skip
    data = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "Person"}], "licenses": []}
    found = corpus(put(tmp_path / "zhiyuan_objv2_train.json", data))
    (image,) = found
    assert image.path.endswith("patch8/objects365_v1_00900001.jpg") and image.image_id is None
    assert [box.crowd for box in image.boxes] == [False, True] and found.categories == ("Person",)


def test_files_about_other_images_are_not_mixed_up(tmp_path: Path) -> None:
    other = {**ROBOFLOW, "images": [{**ROBOFLOW["images"][0], "file_name": "b.jpg"}]}  # type: ignore[index]
    with pytest.raises(DataError, match="id 0 is 'b.jpg' here and 'a_jpg"):
        corpus(f"{put(tmp_path / 'one.json', ROBOFLOW)},{put(tmp_path / 'two.json', other)}")
