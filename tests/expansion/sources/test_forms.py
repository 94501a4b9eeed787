"""Visual Genome, Open Images, webdataset and tables; and the faults that files have."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from llava.data.images import ImageSource
from llava.errors import DataError
from llava.expansion.rows.regions import describe_boxes
from tests.expansion.sources.corpora import ROBOFLOW, corpus, jpeg, put

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
        ("x.json", {"images": [], "annotations": []}, ".annotations. is empty"),
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
