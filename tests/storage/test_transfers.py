"""Large transfers: whole or absent, tried again part by part, refused before they begin where the disk is too small."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from llava import local_files, storage
from llava.errors import StorageError
from llava.storage import bulk, clients, fetching, s3, streaming
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow


@pytest.fixture(params=["rclone_s3", "moto_s3"])
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


def test_a_fetched_file_is_the_object_in_parts(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PART_BYTES", 100_000)
    data = os.urandom(1_234_567)
    storage.write_bytes(f"{server.uri}/model/big", data)
    storage.write_bytes(f"{server.uri}/model/sub/small", b"x")
    storage.write_bytes(f"{server.uri}/model/empty", b"")
    seen: list[tuple[int, int]] = []
    storage.download(f"{server.uri}/model", tmp_path / "copy", lambda *numbers: seen.append(numbers))
    assert (tmp_path / "copy/big").read_bytes() == data
    assert (tmp_path / "copy/sub/small").read_bytes() == b"x"
    assert (tmp_path / "copy/empty").read_bytes() == b""
    assert len(seen) == 14 and seen[-1] == (1_234_568, 1_234_568) and sorted(seen) == seen
    assert (tmp_path / "copy/big").stat().st_mode & 0o777 == 0o666 & ~local_files._umask()
    storage.download(f"{server.uri}/model/big", tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == data


def test_chosen_files_alone(moto_s3: S3Server, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "pytorch_model.bin"):
        storage.write_text(f"{moto_s3.uri}/m/{name}", name)
    storage.download_files(f"{moto_s3.uri}/m", ["config.json"], tmp_path / "m")
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["config.json"]
    with pytest.raises(StorageError, match="model-00002.safetensors is not there"):
        storage.download_files(f"{moto_s3.uri}/m", ["config.json", "model-00002.safetensors"], tmp_path / "n")
    assert not (tmp_path / "n").exists()


def test_a_disk_too_small_is_found_before_anything_is_fetched(
    moto_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(f"{moto_s3.uri}/m/weights", b"0" * 5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: _Disk())
    monkeypatch.setattr(s3, "read_range", lambda *_: pytest.fail("something was fetched"))
    with pytest.raises(StorageError, match=r"0\.000 GB are to be fetched \(s3://llava-test/m/weights, \.\.\.\)"):
        storage.download(f"{moto_s3.uri}/m", tmp_path / "m")
    assert not (tmp_path / "m").exists()


class _Disk:
    free = 4_999


def test_a_store_that_dies_in_the_middle_leaves_nothing_half_fetched(
    rclone_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PART_BYTES", 50_000)
    monkeypatch.setattr(fetching, "THREADS", 2)
    monkeypatch.setenv("LLAVA_STORAGE_DEADLINE_S", "1")
    storage.write_bytes(f"{rclone_s3.uri}/m/weights", os.urandom(2_000_000))

    def progress(done: int, total: int) -> None:
        if done > total // 2 and rclone_s3.process.poll() is None:
            rclone_s3.kill()

    with pytest.raises(StorageError, match="m/weights: the store did not answer before the deadline"):
        storage.download(f"{rclone_s3.uri}/m", tmp_path / "m", progress)
    assert list((tmp_path / "m").iterdir()) == []


def test_a_store_that_comes_back_costs_a_part_and_not_the_file(
    rclone_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PART_BYTES", 100_000)
    data = os.urandom(2_000_000)
    storage.write_bytes(f"{rclone_s3.uri}/m/weights", data)

    def progress(done: int, total: int) -> None:
        if done == 500_000:
            rclone_s3.kill()
            threading.Timer(1.0, rclone_s3.start_again).start()

    storage.download(f"{rclone_s3.uri}/m", tmp_path / "m", progress)
    assert (tmp_path / "m/weights").read_bytes() == data


def test_an_object_that_changes_meanwhile_is_not_mixed(moto_s3: S3Server) -> None:
    uri = f"{moto_s3.uri}/weights"
    storage.write_bytes(uri, b"a" * 1000)
    _, tag = s3.stat(uri)
    assert s3.read_range(uri, 0, 10, tag) == b"a" * 10
    storage.write_bytes(uri, b"b" * 1000)
    with pytest.raises(StorageError, match="412"):
        s3.read_range(uri, 10, 10, tag)


@pytest.mark.parametrize("size", [0, 10, 5 << 20, (11 << 20) + 3])
def test_what_is_streamed_is_what_is_read(server: S3Server, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PART_BYTES", 5 << 20)  # S3's least
    data = os.urandom(size)
    with storage.open_writer(f"{server.uri}/stream", size) as sink:
        for start in range(0, size, 3_000_001):
            sink.write(data[start : start + 3_000_001])
        assert storage.size(f"{server.uri}/stream") is None
    assert storage.read_bytes(f"{server.uri}/stream") == data


def _break_off(uri: str) -> None:
    with storage.open_writer(uri, 0) as sink:
        sink.write(bytes(12 << 20))
        raise RuntimeError("in the middle")


def test_a_stream_that_breaks_leaves_nothing(
    moto_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PART_BYTES", 5 << 20)
    for uri in (f"{moto_s3.uri}/c/stream", str(tmp_path / "c/stream")):
        with pytest.raises(RuntimeError, match="in the middle"):
            _break_off(uri)
        assert storage.size(uri) is None
    assert list((tmp_path / "c").iterdir()) == []
    client = clients.client_of(os.getpid())
    assert "Uploads" not in client.list_multipart_uploads(Bucket=moto_s3.bucket)
    s3.begin_parts(f"{moto_s3.uri}/c/left")  # a process that was killed
    assert s3.abort_unfinished(f"{moto_s3.uri}/c") == 1
    assert "Uploads" not in client.list_multipart_uploads(Bucket=moto_s3.bucket)


def test_the_beginning_and_the_size_in_one_request(server: S3Server, tmp_path: Path) -> None:
    for root in (server.uri, str(tmp_path)):
        storage.write_bytes(f"{root}/x", bytes(range(200)))
        storage.write_bytes(f"{root}/empty", b"")
        assert storage.read_start(f"{root}/x", 10) == (bytes(range(10)), 200)
        assert storage.read_start(f"{root}/x", 1000) == (bytes(range(200)), 200)
        assert storage.read_start(f"{root}/empty", 10) == (b"", 0)


def test_obstore_serves_where_it_can_and_boto3_where_it_cannot(
    moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{moto_s3.uri}/a b#%20é.bin"
    storage.write_bytes(uri, b"0123456789")
    monkeypatch.setattr(s3, "_get_range", lambda *_: pytest.fail("boto3 was asked"))
    assert storage.read_range(uri, 2, 3) == b"234"
    monkeypatch.undo()
    for name, value in moto_s3.environment.items():
        monkeypatch.setenv(name, value)
    double = f"{moto_s3.uri}//odd//name"  # no path to obstore, a key like any other to S3
    storage.write_bytes(double, b"odd")
    assert storage.read_bytes(double) == b"odd" and storage.read_range(double, 1, 2) == b"dd"
    monkeypatch.setattr(bulk, "_process", -1)  # as in a forked child
    clients.forget_client()
    assert storage.read_range(uri, 2, 3) == b"234"
