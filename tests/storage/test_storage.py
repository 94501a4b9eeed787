"""llava.storage on disk and against two real S3 servers."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava import local_files, storage
from llava.errors import SettingsError, StorageError
from llava.storage import clients, watch
from tests.s3_server import S3Server


@pytest.fixture(params=["disk", "rclone_s3", "moto_s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "store")
    server: S3Server = request.getfixturevalue(request.param)
    return storage.join(server.uri, "some/prefix")


def test_what_is_written_is_read(root: str) -> None:
    uri = storage.join(root, "a", "b.bin")
    assert not storage.exists(uri) and storage.size(uri) is None
    storage.write_bytes(uri, b"0123456789")
    assert storage.read_bytes(uri) == b"0123456789"
    assert storage.size(uri) == 10
    assert storage.exists(uri) and storage.exists(root)
    storage.write_bytes(uri, b"new")
    assert storage.read_bytes(uri) == b"new"


def test_ranges_are_exact_even_where_the_server_ignores_them(root: str) -> None:
    uri = storage.join(root, "blob")
    storage.write_bytes(uri, bytes(range(256)))
    assert storage.read_range(uri, 10, 5) == bytes(range(10, 15))
    with pytest.raises(StorageError, match="ends before byte 300"):
        storage.read_range(uri, 250, 50)


def test_listing_is_recursive_sorted_and_stops_at_the_folder_name(root: str) -> None:
    for name in ("run/b.txt", "run/a/x.txt", "run-other/c.txt"):
        storage.write_text(storage.join(root, name), name)
    assert [item.path for item in storage.list_files(storage.join(root, "run"))] == ["a/x.txt", "b.txt"]
    assert list(storage.list_files(storage.join(root, "nothing"))) == []


def test_folders_travel_both_ways_and_are_deleted_whole(root: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "one").write_bytes(b"1")
    (source / "sub" / "two").write_bytes(b"2" * 100_000)
    storage.upload(source, storage.join(root, "copy"))
    back = tmp_path / "back"
    storage.download(storage.join(root, "copy"), back)
    assert {p.relative_to(back).as_posix(): p.read_bytes() for p in back.rglob("*") if p.is_file()} == {
        "one": b"1",
        "sub/two": b"2" * 100_000,
    }
    storage.delete(storage.join(root, "copy"))
    assert not storage.exists(storage.join(root, "copy"))
    storage.delete(storage.join(root, "copy"))


def test_a_copied_temporary_folder_is_readable_by_others(tmp_path: Path) -> None:
    private = Path(tempfile.mkdtemp(dir=tmp_path))
    (private / "file").write_bytes(b"x")
    storage.upload(private, str(tmp_path / "copy"))
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o777 & ~local_files._umask()


def test_absent_and_malformed_are_named(root: str) -> None:
    uri = storage.join(root, "absent.json")
    for read in (storage.read_bytes, storage.read_text, storage.read_json):
        with pytest.raises(StorageError, match="absent.json"):
            read(uri)
    with pytest.raises(StorageError, match="no such"):
        storage.as_local(uri)
    storage.write_text(uri, '{"a": }')
    with pytest.raises(StorageError, match="absent.json: not JSON.*line 1 column 7"):
        storage.read_json(uri)
    storage.write_bytes(uri, b"\xff\xfe")
    with pytest.raises(StorageError, match="not UTF-8"):
        storage.read_text(uri)


def test_as_local_gives_the_file_or_a_copy(root: str, tmp_path: Path) -> None:
    storage.write_text(storage.join(root, "model/config.json"), "{}")
    assert (storage.as_local(storage.join(root, "model")) / "config.json").read_text() == "{}"
    assert storage.as_local(storage.join(root, "model/config.json"), cache=tmp_path / "cache").read_text() == "{}"


def test_a_deadline_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("soon", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("LLAVA_STORAGE_DEADLINE_S", value)
        with pytest.raises(SettingsError, match=r"LLAVA_STORAGE_DEADLINE_S: found '.*'; expected seconds"):
            watch.deadline_s()


def test_a_fifo_is_no_local_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StorageError, match="a FIFO"):
        storage.as_local(str(tmp_path / "fifo"))


def test_wrong_credentials_are_an_error_at_once(rclone_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    clients.forget_client()
    with pytest.raises(StorageError, match="refused with 403") as caught:
        storage.read_bytes(storage.join(rclone_s3.uri, "x"))
    assert "wrong" not in str(caught.value)


@pytest.mark.slow
def test_a_store_that_restarts_loses_nothing(rclone_s3: S3Server) -> None:
    rclone_s3.kill()
    threading.Timer(2.0, rclone_s3.start_again).start()
    uri = storage.join(rclone_s3.uri, "kept")
    storage.write_bytes(uri, b"kept")
    assert storage.read_bytes(uri) == b"kept"


def test_a_store_that_stays_away_is_an_error_at_the_deadline(
    rclone_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAVA_STORAGE_DEADLINE_S", "1")
    rclone_s3.kill()
    with pytest.raises(StorageError, match="did not answer before the deadline"):
        storage.read_bytes(storage.join(rclone_s3.uri, "x"))


def _write_forever(path: str) -> None:
    while True:
        storage.write_bytes(path, b"a" * 200_000)
        storage.write_bytes(path, b"b" * 200_000)


@pytest.mark.slow
def test_a_local_write_is_whole_or_absent_however_the_writer_dies(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for pause in (0.05, 0.11, 0.17):
        writer = multiprocessing.get_context("spawn").Process(target=_write_forever, args=(str(path),))
        writer.start()
        while not path.exists():
            time.sleep(0.01)
        time.sleep(pause)
        writer.kill()
        writer.join()
        assert len(set(path.read_bytes())) == 1 and path.stat().st_size == 200_000


def test_unknown_schemes_and_missing_buckets_are_refused() -> None:
    with pytest.raises(StorageError, match="known schemes"):
        storage.read_bytes("ftp://host/file")
    with pytest.raises(StorageError, match="no bucket"):
        storage.read_bytes("s3:///file")


@given(st.lists(st.text("abc/", max_size=5), max_size=4))
def test_join_never_doubles_or_loses_a_slash(parts: list[str]) -> None:
    joined = storage.join("s3://bucket/prefix/", *parts)
    stripped = [part.strip("/") for part in parts if part.strip("/")]
    assert joined.startswith("s3://bucket/prefix")
    if stripped:
        assert joined == "s3://bucket/prefix/" + "/".join(stripped)


@pytest.mark.slow
@pytest.mark.parametrize("server", ["rclone_s3", "moto_s3"])
def test_tags_tell_whether_an_object_is_still_the_same(server: str, request: pytest.FixtureRequest) -> None:
    uri = storage.join(request.getfixturevalue(server).uri, "lease")
    assert storage.read_tagged(uri) is None
    first = storage.write_tagged(uri, b"one", None)
    found = storage.read_tagged(uri)
    assert found is not None and first and found.tag == first and found.data == b"one" and 0 <= found.age_s < 30
    second = storage.write_tagged(uri, b"two", first)
    assert second and second != first
    refused = storage.write_tagged(uri, b"three", first), storage.write_tagged(uri, b"four", None)
    # rclone's server looks at no condition; callers must be able to tell.
    assert (refused == (None, None)) == (server == "moto_s3")
    assert storage.read_bytes(uri) == (b"two" if server == "moto_s3" else b"four")


def test_tags_are_for_object_stores(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="conditional writes are for object stores"):
        storage.write_tagged(str(tmp_path / "x"), b"", None)
