"""RefCOCO as people have it, pickles of plain data among it: what is read, and what is refused and does nothing."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from llava.errors import DataError
from llava.evaluation.benchmarks import get_benchmark
from llava.evaluation.plain_pickle import plain_data
from tests.evaluation.test_layouts import image, read, write


def refer_folder(folder: Path) -> None:
    refs = [
        {"ref_id": 1, "ann_id": 7, "image_id": 3, "split": "testA", "sentences": [
            {"sent_id": 11, "sent": "the red one"}, {"sent_id": 12, "sent": "left man"}]},
        {"ref_id": 2, "ann_id": 7, "image_id": 3, "split": "train", "sentences": [{"sent_id": 13, "sent": "x"}]},
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=0))
    write(
        folder / "instances.json",
        {
            "images": [{"id": 3, "file_name": "COCO_train2014_000000000003.jpg", "width": 200, "height": 120}],
            "annotations": [{"id": 7, "image_id": 3, "bbox": [20.0, 0.0, 80.0, 80.0]}],
        },
    )
    image(folder / "train2014/COCO_train2014_000000000003.jpg")


def test_refcoco_in_every_form_gives_the_same_boxes(tmp_path: Path) -> None:
    refer_folder(tmp_path / "refcoco")
    first, second = read("refcoco", tmp_path / "refcoco")
    assert (first.id, second.id, first.kind) == ("11", "12", "testA")
    asked = "Please provide the bounding box coordinate of the region this sentence describes: the red one"
    assert first.text == asked and first.gold == second.gold
    assert first.gold["box"] == pytest.approx((0.1, 0.2, 0.5, 0.6))
    size = {"width": 200, "height": 120}
    coco = {
        "images": [{"id": 0, "file_name": "i.jpg", "caption": "the red one", **size}],
        "annotations": [{"image_id": 0, "bbox": [20, 0, 80, 80]}],
    }
    corners = {"image": "i.jpg", "sent": "the red one", "bbox": [20, 0, 100, 80], **size}
    for file in (
        write(tmp_path / "finetune_refcoco_testA.json", coco),
        write(tmp_path / "refcoco_testA.jsonl", corners),
    ):
        [question] = get_benchmark("refcoco").read(str(file))
        assert question.text == first.text and question.gold["box"] == pytest.approx(first.gold["box"])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read_from_a_pickle_of_any_protocol(protocol: int) -> None:
    shared = ["x", 2**40]
    value = {"a": [1, -2.5, None, True, "é", (1, 2, 3, 4), ()], "b": shared, "c": shared, "d": {}, 3: [[]] * 3}
    assert plain_data(pickle.dumps(value, protocol=protocol), "p") == value


def test_a_pickle_that_would_do_something_is_refused_and_does_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "touched",))

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(DataError, match="expected plain data"):
            plain_data(pickle.dumps([Evil()], protocol=protocol), "refs.p")
    with pytest.raises(DataError):
        plain_data(b"\x80\x04garbage", "refs.p")
    assert not (tmp_path / "touched").exists()


def test_a_pickle_that_multiplies_or_holds_itself_is_refused() -> None:
    doubled: list[object] = []
    for _ in range(60):
        doubled = [doubled, doubled]
    itself: list[object] = []
    itself.append(itself)
    for value in (doubled, itself):
        with pytest.raises(DataError, match="over and over"):
            plain_data(pickle.dumps(value), "refs.p")
    shared = ["the same text"] * 1000
    assert plain_data(pickle.dumps([shared, shared]), "refs.p") == [shared, shared]
