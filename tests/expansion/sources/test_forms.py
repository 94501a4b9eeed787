"""Sources told by their content, in the forms that their publishers describe, and with the faults that files have."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.data.images import ImageSource
from llava.errors import DataError, SettingsError
from llava.expansion.job import open_job
from llava.expansion.rows.regions import describe_boxes
from llava.expansion.sources.corpus import AnnotatedImage, Corpus
from llava.expansion.sources.opening import open_corpus


def opened(uri: Path | str, prefix: str = "", **more: Any) -> list[AnnotatedImage]:
    return list(corpus(uri, prefix, **more))


def corpus(
    uri: Path | str, prefix: str = "", *, split: str = "train", images: Path | str = "", limit: int = 0
) -> Corpus:
    return open_corpus(str(uri), split=split, image_prefix=prefix, images_uri=str(images), limit=limit)


def put(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def jpeg(colour: str = "red", size: tuple[int, int] = (40, 20)) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", size, colour).save(written, "JPEG")
    return written.getvalue()


# As Roboflow exports COCO: a root category, file names with a hash, images beside the file, a folder for each split.
ROBOFLOW = {
    "info": {"description": "Exported from roboflow.com"},
    "licenses": [{"id": 1, "url": "", "name": "CC BY 4.0"}],
    "categories": [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "animals"},
    ],
    "images": [{"id": 0, "license": 1, "file_name": "a_jpg.rf.0f1e.jpg", "height": 640, "width": 640}],
    "annotations": [
        {"id": 0, "image_id": 0, "category_id": 1, "bbox": [64, 32, 320.5, 128], "segmentation": [], "iscrowd": 0}
    ],
}  # fmt: skip


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


REGION = {
    "region_id": 1382, "width": 82, "height": 139, "image_id": 1, "phrase": "the clock is green in colour", "y": 57,
    "x": 421,
}  # fmt: skip
VG_IMAGE = {"width": 800, "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg", "height": 600, "image_id": 1,
            "coco_id": 397133, "flickr_id": None}  # fmt: skip


def test_visual_genome_regions_are_described_boxes(tmp_path: Path) -> None:
    twice = {**REGION, "region_id": 2, "phrase": "a tree."}
    regions = [REGION, twice, {**twice, "x": 10}, {**REGION, "width": 0}, {"region_id": 4}, 5]
    put(tmp_path / "region_descriptions.json", [{"regions": regions, "id": 1}])
    put(tmp_path / "image_data.json", [VG_IMAGE, {"image_id": 2}])
    found = corpus(tmp_path, "vg")
    (image,) = found
    assert (image.path, image.image_id, image.width) == ("vg/VG_100K_2/1.jpg", 397133, 800)
    # two trees: the phrase would fit both
    assert [(text, box.x) for text, box in describe_boxes(image)] == [("the clock is green in colour", 421)]
    assert sorted(problem.problem for problem in found.problems) == ["image-row", *["region-row"] * 3]
    assert found.categories == ()
    with pytest.raises(DataError, match="expected Visual Genome's image_data.json"):
        corpus(tmp_path / "region_descriptions.json")


HEAD = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"


def open_images(folder: Path) -> tuple[Path, Path]:
    lines = [
        HEAD,
        "000002b66c9c498e,xclick,/m/01g317,1,0.012500,0.512500,0.25,0.75,0,1,0,0,0",
        "000002b66c9c498e,xclick,/m/0284d,1,0.1,0.2,0.3,0.4,0,1,1,0,0",
        "000002b66c9c498e,xclick,/m/unknown,1,0.1,0.2,0.3,0.4,0,1,0,0,0",
        "000002b66c9c498e,xclick,/m/0284d,1,0.5,0.2,0.3,0.4,0,1,0,0,0",
        "000002b66c9c498e,xclick,/m/0284d,1,nan,0.2,0.3,0.4,0,1,0,0,0",
        "gone,xclick,/m/01g317,1,0.1,0.2,0.3,0.4,0,1,0,0,0",
        "broken,xclick,/m/01g317,1,0.1,0.2,0.3,0.4,0,1,0,0,0",
    ]
    put(folder / "oidv6-train-annotations-bbox.csv", "\n".join(lines) + "\n")
    put(
        folder / "oidv7-class-descriptions-boxable.csv",
        "LabelName,DisplayName\n/m/01g317,Person\n/m/0284d,Bell pepper\n",
    )
    story = {
        "dataset_id": "open_images_train",
        "image_id": "000002b66c9c498e",
        "annotator_id": 93,
        "caption": "A person.",
    }
    put(folder / "open_images_train_v6_captions.jsonl", json.dumps(story) + "\n{\n")
    images = folder / "pictures"
    (images / "train").mkdir(parents=True)
    (images / "train" / "000002b66c9c498e.jpg").write_bytes(jpeg(size=(400, 200)))
    (images / "train" / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    return folder, images


def test_open_images_takes_sizes_from_the_images(tmp_path: Path) -> None:
    folder, images = open_images(tmp_path)
    found = corpus(folder, "train", images=images)
    (image,) = found
    assert (image.path, image.width, image.height, image.captions) == (
        "train/000002b66c9c498e.jpg", 400, 200, ("A person.",)
    )  # fmt: skip
    person, peppers = image.boxes
    assert (person.category, person.x, person.y) == ("person", 5.0, 50.0)
    assert (person.width, person.height) == pytest.approx((200.0, 100.0))
    assert (person.crowd, peppers.crowd, peppers.category) == (False, True, "bell pepper")
    assert sorted(problem.problem for problem in found.problems) == [
        "box-row", "box-row", "box-row", "caption-row", "image-corrupt", "image-missing"
    ]  # fmt: skip
    with pytest.raises(DataError, match="images_uri: empty"):
        corpus(folder, "train")
    with pytest.raises(DataError, match="expected the class descriptions"):
        corpus(folder / "oidv6-train-annotations-bbox.csv", "train", images=images)


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_webdataset_shards_are_read_where_they_lie(tmp_path: Path) -> None:
    red, blue = jpeg("red"), jpeg("blue")
    shard(tmp_path / "00000.tar", {"a.jpg": red, "a.txt": b"A red thing.\n", "b.json": b'{"caption": "none"}'})
    shard(tmp_path / "00001.tar", {"c.jpg": blue, "c.json": b'{"caption": "A blue thing."}', "d.jpg": red})
    found = corpus(tmp_path, images=tmp_path)
    first, second = found
    assert (first.captions, second.captions) == (("A red thing.",), ("A blue thing.",))
    source = ImageSource(str(tmp_path))
    assert (source.read(first.path), source.read(second.path)) == (red, blue)
    assert first.path.startswith("00000.tar#") and first.stem != second.stem and "#" not in first.stem
    assert sorted(problem.problem for problem in found.problems) == ["caption-row", "image-field"]
    assert [image.captions for image in corpus(tmp_path, limit=1)] == [("A red thing.",)]


def test_a_tables_images_are_put_where_training_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    monkeypatch.setenv("LLAVA_NODE_CACHE", str(tmp_path / "cache"))
    red, blue = jpeg("red"), jpeg("blue")
    table = pa.table(
        {
            "image": [{"bytes": red, "path": "a.jpg"}, {"bytes": blue, "path": None}, None],
            "caption": [["A red thing.", "Red."], ["A blue thing."], ["Nothing."]],
        }
    )
    (tmp_path / "set" / "data").mkdir(parents=True)
    pq.write_table(table, tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
    pq.write_table(table, tmp_path / "set" / "data" / "test-00000-of-00001.parquet")
    images = tmp_path / "images"
    for _ in range(2):  # what is there already is used again
        found = corpus(tmp_path / "set", images=images)
        first, second = found
        assert (first.captions, second.captions) == (("A red thing.", "Red."), ("A blue thing.",))
        source = ImageSource(str(images))
        assert (source.read(first.path), source.read(second.path)) == (red, blue)
    assert [path.name for path in images.iterdir()] == ["train-00000-of-00001.tar"]
    assert [problem.problem for problem in found.problems] == ["image-field"]
    (images / "train-00000-of-00001.tar").write_bytes(b"mine")
    with pytest.raises(DataError, match="found 4 bytes; expected the"):
        corpus(tmp_path / "set", images=images)
    with pytest.raises(DataError, match="images_uri: empty"):
        corpus(tmp_path / "set")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", {"rows": [], "info": {}}, "an object with rows, info; expected COCO's lists"),
        ("x.json", {"images": [], "annotations": []}, "no image has a caption or a box"),
        ("x.json", {"images": [{"id": 1, "file_name": "a.jpg", "width": 1, "height": 1}]}, "no list 'annotations'"),
        ("x.json", {**ROBOFLOW, "categories": []}, r"category ids \[1\] are not in the list"),
        ("x.json", '{"images": [{"id": 1}', "not JSON"),
        ("x.tar", "no tar at all, but long enough" * 40, "not an uncompressed tar"),
        ("x.parquet", "no table", "cannot be read as a table"),
        ("x.csv", HEAD + "\n", "expected the class descriptions"),
    ],
)  # fmt: skip
def test_what_is_none_of_it_says_so(tmp_path: Path, name: str, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        corpus(put(tmp_path / name, content), images=tmp_path)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    uris = f"{put(tmp_path / 'one.json', ROBOFLOW)},{put(tmp_path / 'two.json', [REGION])}"
    with pytest.raises(
        DataError, match=r"one\.json is COCO's form, two\.json is .*; expected files that belong together"
    ):
        corpus(uris)


@pytest.mark.parametrize(
    "fault",
    [
        {"bbox": [1, 2, float("1e999"), 4]},
        {"bbox": [1, 2, True, "4"]},
        {"bbox": None},
        {"image_id": "0"},
        {"category_id": 1 << 70},
    ],
)
def test_hostile_numbers_are_counted(tmp_path: Path, fault: dict[str, Any]) -> None:
    rows = [*ROBOFLOW["annotations"], {**ROBOFLOW["annotations"][0], **fault}]  # type: ignore[index]
    text = json.dumps({**ROBOFLOW, "annotations": rows}).replace("Infinity", "1e999")
    found = corpus(put(tmp_path / "x.json", text))
    assert [problem.problem for problem in found.problems] == ["box-row"] and len(next(iter(found)).boxes) == 1
