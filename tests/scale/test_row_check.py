"""The check of rows whose images lie in a store: what it reads, on 1, 2 and 8 ranks, and what a second start reads."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llava import storage
from llava.data.check import CheckResult, check_rows
from llava.data.images import ImageSource
from llava.data.records import read_records
from llava.storage import clients
from llava.training import row_verdicts
from tests.counting_proxy import Traffic, counting
from tests.data.test_check import parts
from tests.data.test_preprocess import encoded
from tests.s3_server import S3Server, moto_server
from tests.scale.ranks import on_ranks

pytestmark = pytest.mark.slow

IMAGES = 24


def photograph(number: int) -> bytes:
    """A JPEG of some 200 kB, as COCO's are."""
    noise = np.random.default_rng(number).integers(0, 255, (360, 480 + number, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    assert len(data) > 100_000
    return data


def with_a_large_preview(data: bytes) -> bytes:
    """The same JPEG with 120 kB of application data before its frame header."""
    segment = b"\xff\xed" + (60_002).to_bytes(2, "big") + bytes(60_000)
    return data[:2] + segment * 2 + data[2:]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with moto_server() as running:
        yield running


@pytest.fixture
def counted(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[S3Server, Traffic]]:
    with counting(server) as (seen, traffic):
        for name, value in seen.environment.items():
            monkeypatch.setenv(name, value)
        clients.forget_client()
        yield seen, traffic
    clients.forget_client()


@pytest.fixture
def rows(counted: tuple[S3Server, Traffic], tmp_path: Path) -> tuple[str, str]:
    """(data file, images root): as many rows as images, one of them absent, one cut short."""
    server, traffic = counted
    root = f"{server.uri}/images"
    for number in range(IMAGES):
        data = photograph(number)
        if number == 3:
            data = data[:-1000]
        if number == 4:
            data = with_a_large_preview(data)
        if number != 2:
            storage.write_bytes(f"{root}/{number}.jpg", data)
    content = [
        {"id": str(number), "image": f"{number}.jpg", "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": f"Noise {number}."}]}
        for number in range(IMAGES)
    ]  # fmt: skip
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(content))
    traffic.reset()
    return str(path), root


def found(result: CheckResult) -> Any:
    return (
        result.good, result.facts.lengths.tolist(), result.sizes, sorted((p.row, p.problem) for p in result.problems),
        result.total,
    )  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_an_image_costs_a_few_kilobytes_once_over_all_ranks(
    counted: tuple[S3Server, Traffic], rows: tuple[str, str], ranks: int
) -> None:
    _, traffic = counted
    path, root = rows
    file = read_records(path)
    results = on_ranks(ranks, lambda rank: check_rows(file, ImageSource(root), *parts(), threads=4, workers=rank))
    assert all(found(result) == found(results[0]) for result in results)
    assert found(results[0])[3] == [(2, "image-missing"), (3, "image-corrupt")]
    assert results[0].sizes["5.jpg"] == (485, 360) and results[0].sizes["4.jpg"] == (484, 360)
    ordinary = [f"images/{number}.jpg" for number in range(IMAGES) if number not in (2, 3, 4)]
    assert all(0 < traffic.read[key] <= 64 << 10 for key in ordinary)
    assert all(traffic.requests["GET", key] <= 2 for key in ordinary)
    # The two that do not tell by their ends are read whole, once.
    assert traffic.bytes_read("images/") <= (64 << 10) * len(ordinary) + 2 * 600_000


def test_the_same_is_found_in_a_store_and_on_a_disk(rows: tuple[str, str], tmp_path: Path) -> None:
    path, root = rows
    storage.download(root, tmp_path / "images")
    file = read_records(path)
    assert found(check_rows(file, ImageSource(root), *parts())) == found(
        check_rows(file, ImageSource(str(tmp_path / "images")), *parts())
    )


def test_members_of_shards_are_read_by_their_ends_too(counted: tuple[S3Server, Traffic], tmp_path: Path) -> None:
    server, traffic = counted
    data = photograph(40)
    storage.write_bytes(f"{server.uri}/packed.tar", bytes(512) + data + bytes(512))
    traffic.reset()
    source = ImageSource(server.uri)
    assert source.header(f"packed.tar#512+{len(data)}") == (520, 360)
    assert traffic.bytes_read("packed.tar") <= 64 << 10


def test_a_large_png_is_looked_at_by_its_ends(counted: tuple[S3Server, Traffic]) -> None:
    server, traffic = counted
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (300, 300, 3), dtype=np.uint8))
    held = io.BytesIO()
    noise.save(held, "PNG")
    whole = held.getvalue()
    storage.write_bytes(f"{server.uri}/whole.png", whole)
    storage.write_bytes(f"{server.uri}/cut.png", whole[:-50])
    traffic.reset()
    source = ImageSource(server.uri)
    assert source.header("whole.png") == (300, 300)
    assert traffic.bytes_read("whole.png") <= 64 << 10 < len(whole)
    with pytest.raises(Exception, match=r"cut\.png"):
        source.header("cut.png")


def test_a_second_check_reads_no_image(counted: tuple[S3Server, Traffic], rows: tuple[str, str]) -> None:
    server, traffic = counted
    path, root = rows
    file = read_records(path)
    encoder, preprocessor = parts(tiles=True)
    folder = f"{server.uri}/checkpoints"
    key = row_verdicts.key(file, root, encoder, preprocessor)
    assert row_verdicts.recall([folder], key, file) is None
    result = check_rows(file, ImageSource(root), encoder, preprocessor)
    row_verdicts.keep(folder, key, file, result)
    traffic.reset()
    recalled = row_verdicts.recall(["/nowhere", folder], key, file)
    assert recalled is not None and found(recalled[1]) == found(result)
    assert [str(p) for p in recalled[1].problems] == [str(p) for p in result.problems]
    assert traffic.gets("images/") == 0 and traffic.gets() <= 2


def test_a_verdict_is_of_these_rows_this_root_and_this_encoding_alone(tmp_path: Path) -> None:
    rows = [{"id": "1", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}]
    keys = set()
    for number, name in enumerate(("a", "b")):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(rows * (number + 1)))
        for root in ("s3://one", "s3://two"):
            for tiles in (False, True):
                keys.add(row_verdicts.key(read_records(str(path)), root, *parts(tiles)))
    assert len(keys) == 8


def test_a_damaged_verdict_is_none(tmp_path: Path) -> None:
    rows = [{"id": "1", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    file = read_records(str(tmp_path / "rows.json"))
    encoder, preprocessor = parts()
    row_verdicts.keep(str(tmp_path), "key", file, check_rows(file, ImageSource(""), encoder, preprocessor))
    assert row_verdicts.recall([str(tmp_path)], "key", file) is not None
    place = tmp_path / "row-check-key.safetensors"
    whole = place.read_bytes()
    for damaged in (whole[:-1], whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:], b"", os.urandom(64)):
        place.write_bytes(damaged)
        assert row_verdicts.recall([str(tmp_path)], "key", file) is None
