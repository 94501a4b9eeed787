"""The check before training: each fault found, named and counted once; the rest is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llava import storage
from llava.data.check import check_rows
from llava.data.dataset import LazySupervisedDataset
from llava.data.images import ImageSource
from llava.data.labels import RowEncoder
from llava.data.preprocess import Preprocessor
from llava.data.records import read_records
from llava.data.templates import get_template
from llava.errors import DataError, RowError, StorageError
from tests.data.test_images import JPEG
from tests.data.test_preprocess import encoded, next_processor, picture
from tests.data.tokenizers_for_tests import make_processor, make_tokenizer


def row(
    identity: str, image: Any = "ok.jpg", question: str = "<image>\nWhat?", answer: str = "A red circle."
) -> dict[str, Any]:
    found = {"id": identity, "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}
    return {**found, "image": image} if image else found


ROWS = [
    row("0"),
    row("1", "absent.jpg"),
    row("2", "cut.jpg"),
    row("3", "ok.jpg", "<image><image>two for one"),
    row("4", "", "only text"),
    row("5", ["ok.jpg", "wide.jpg"], "<image> or <image>?"),
    row("6", ["ok.jpg", "absent.jpg"], "<image> or <image>?"),
    row("7", answer="says </s> literally"),
    row("8", answer="said ASSISTANT: here"),
    row("9", "../up.jpg"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ok.jpg").write_bytes(JPEG)
    (tmp_path / "wide.jpg").write_bytes(encoded(picture(90, 30), "JPEG"))
    (tmp_path / "cut.jpg").write_bytes(JPEG[:300])
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    return tmp_path


def parts(tiles: bool = False) -> tuple[RowEncoder, Preprocessor]:
    tokenizer = make_tokenizer("llama")
    processor = next_processor() if tiles else make_processor(tokenizer, "")
    return RowEncoder(get_template("v1"), tokenizer, max_length=512), Preprocessor.from_processor(processor)


@pytest.mark.parametrize("depth", ["header", "full"])
def test_every_fault_is_found_and_named(folder: Path, depth: Any) -> None:
    file = read_records(str(folder / "rows.json"))
    shown: list[tuple[str, int, int]] = []
    result = check_rows(
        file,
        ImageSource(str(folder)),
        *parts(),
        depth=depth,
        progress=lambda what, done, of: shown.append((what, done, of)),
    )
    problems = {problem.row: (problem.problem, problem.field) for problem in result.problems}
    assert problems == {
        1: ("image-missing", "image"),
        2: ("image-corrupt", "image"),
        3: ("image-count", "conversations"),
        6: ("image-missing", "image[1]"),
        7: ("control-token", "conversations[1].value"),
        9: ("image-path", "image"),
    }
    assert [file.records[i].id for i in result.good] == ["0", "4", "5", "8"]
    assert result.counts == {
        "image-missing": 2,
        "image-corrupt": 1,
        "image-count": 1,
        "control-token": 1,
        "image-path": 1,
    }
    assert result.notes == {"role-marker-in-text": 1}
    assert result.sizes == {"ok.jpg": (40, 30), "wide.jpg": (90, 30)}
    assert shown[-1] == ("rows", 9, 9)
    assert ("images", 5, 5) in shown
    result.stop_above(0.6)
    with pytest.raises(DataError, match=r"6 of 10 rows \(60.00%\) cannot be used"):
        result.stop_above(0.59)


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize(("chunk", "threads"), [(1, 1), (2, 5), (128, 2)])
def test_chunks_and_threads_change_nothing(
    folder: Path, tiles: bool, chunk: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llava.data import check

    (folder / "many.json").write_text(json.dumps(ROWS * 5))
    file = read_records(str(folder / "many.json"))
    encoder, preprocessor = parts(tiles)
    monkeypatch.setattr(check, "FACTS_CHUNK", chunk)
    result = check_rows(file, ImageSource(str(folder)), encoder, preprocessor, threads=threads)
    expected = [10 * block + row for block in range(5) for row in (0, 4, 5, 8)]
    assert [file.records[i].index for i in result.good] == expected
    problems = [problem.row for problem in result.problems if problem.problem != "image-count"]
    assert problems == [10 * block + row for block in range(5) for row in (1, 2, 6, 7, 9)]
    assert result.notes == {"role-marker-in-text": 5}
    for at, position in enumerate(result.good):
        record = file.records[position]
        counts = [preprocessor.visual_tokens(*result.sizes[ref]) for ref in record.images]
        encoded = encoder.encode(record, counts)
        assert (result.facts.lengths[at], result.facts.supervised[at]) == (len(encoded.input_ids), encoded.supervised)


@pytest.mark.parametrize("tiles", [False, True])
def test_the_good_rows_are_what_the_dataset_builds(folder: Path, tiles: bool) -> None:
    file = read_records(str(folder / "rows.json"))
    encoder, preprocessor = parts(tiles)
    images = ImageSource(str(folder))
    result = check_rows(file, images, encoder, preprocessor)
    good = [file.records[i] for i in result.good]
    dataset = LazySupervisedDataset(good, encoder, images, preprocessor, sizes=result.sizes)
    assert np.array_equal(dataset.lengths, result.facts.lengths)
    for i, example in enumerate(dataset[j] for j in range(len(dataset))):
        assert len(example.input_ids) == dataset.lengths[i]
        assert (example.labels[1:] != -100).sum() == dataset.supervised[i]
        assert len(example.pixels) == dataset.image_counts[i]
        assert example.image_sizes == tuple(result.sizes[ref][::-1] for ref in good[i].images)
    assert dataset.image_counts.tolist() == [int(v) for v in result.facts.image_counts]
    part = dataset.subset([2, 0])
    assert part.lengths.tolist() == [dataset.lengths[2], dataset.lengths[0]]
    assert part[0].record_id == "5"


def test_a_row_that_breaks_after_the_check_fails_loudly(folder: Path) -> None:
    file = read_records(str(folder / "rows.json"))
    encoder, preprocessor = parts()
    images = ImageSource(str(folder))
    result = check_rows(file, images, encoder, preprocessor)
    dataset = LazySupervisedDataset(file.records, encoder, images, preprocessor, file=file.uri).subset(result.good)
    (folder / "ok.jpg").unlink()
    with pytest.raises(RowError, match=r"rows.json: row 0: image: found .*ok.jpg") as caught:
        dataset[0]
    assert caught.value.problem == "image-missing"
    assert len(dataset[1].input_ids)


def test_tiles_need_the_sizes_of_images(folder: Path) -> None:
    file = read_records(str(folder / "rows.json"))
    encoder, preprocessor = parts(tiles=True)
    dataset = LazySupervisedDataset(file.records, encoder, ImageSource(str(folder)), preprocessor)
    with pytest.raises(DataError, match="check_rows"):
        _ = dataset.lengths


@pytest.mark.slow
def test_a_dead_store_stops_the_check_instead_of_counting_rows(
    moto_s3: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.upload(folder / "ok.jpg", f"{moto_s3.uri}/images/ok.jpg")
    (folder / "one.json").write_text(json.dumps([row("0"), row("1", "absent.jpg")]))
    file = read_records(str(folder / "one.json"))
    result = check_rows(file, ImageSource(f"{moto_s3.uri}/images"), *parts())
    assert (len(result.good), result.counts) == (1, {"image-missing": 1})
    monkeypatch.setenv("LLAVA_STORAGE_DEADLINE_S", "0.2")
    moto_s3.kill()
    with pytest.raises(StorageError, match="did not answer"):
        check_rows(file, ImageSource(f"{moto_s3.uri}/images"), *parts())


def test_without_an_encoder_structure_and_images_are_checked(folder: Path) -> None:
    file = read_records(str(folder / "rows.json"))
    result = check_rows(file, ImageSource(str(folder)))
    assert [file.records[i].id for i in result.good] == ["0", "4", "5", "7", "8"]
    assert result.facts.lengths.tolist() == [0] * 5


def test_raw_images_become_the_same_pixels_on_the_device(folder: Path) -> None:
    from llava.data.batches import collator_of
    from llava.data.device_preprocess import TOLERANCE, DevicePreprocessor

    file = read_records(str(folder / "rows.json"))
    encoder, preprocessor = parts()
    images = ImageSource(str(folder))
    good = check_rows(file, images, encoder, preprocessor).good
    host = LazySupervisedDataset(file.records, encoder, images, preprocessor).subset(good)
    raw = LazySupervisedDataset(file.records, encoder, images, preprocessor, raw_pixels=True).subset(good)
    rows = range(len(good))
    expected = collator_of(host, True)([host[i] for i in rows], rows)
    held = collator_of(raw, True)([raw[i] for i in rows], rows)
    assert held.has_images
    with pytest.raises(ValueError, match="DevicePreprocessor"):
        held.to("cpu")
    found = held.to("cpu", preprocess=DevicePreprocessor(preprocessor.settings))
    assert found.raw_images == ()
    apart = (found.pixel_values_ICHW - expected.pixel_values_ICHW).abs().max()
    assert apart <= TOLERANCE / 255 / 0.26 + 1e-5  # 0.26: the smallest of CLIP's deviations
    assert np.array_equal(found.input_ids_BT.numpy(), expected.input_ids_BT.numpy())
    text_only = collator_of(raw, True)([raw[1]], [1]).to("cpu")
    assert not text_only.has_images


def test_an_image_too_large_for_the_device_comes_resized_by_the_host(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llava.data import dataset

    monkeypatch.setattr(dataset, "MAX_DEVICE_PIXELS", 40 * 30)
    file = read_records(str(folder / "rows.json"))
    encoder, preprocessor = parts()
    images = ImageSource(str(folder))
    raw = LazySupervisedDataset(file.records, encoder, images, preprocessor, raw_pixels=True)[4]
    small, large = raw.raw
    assert small.shape == (30, 40, 3)
    assert np.array_equal(large, preprocessor.resized(images.load("wide.jpg")))


def test_raw_images_are_page_locked_for_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llava.data.batches import collator_of

    asked: list[bool] = []
    make = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, pin_memory=False, **k: asked.append(pin_memory) or make(*a, **k))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    file = read_records(str(folder / "rows.json"))
    encoder, preprocessor = parts()
    raw = LazySupervisedDataset(file.records, encoder, ImageSource(str(folder)), preprocessor, raw_pixels=True)
    batch = collator_of(raw, True)([raw[4], raw[0]], [4, 0])
    pinned = batch.pin_memory().raw_images
    assert asked == [True] * 3
    assert all(isinstance(image, torch.Tensor) for image in pinned)
    assert all(np.array_equal(image, np.asarray(held)) for image, held in zip(batch.raw_images, pinned, strict=True))
