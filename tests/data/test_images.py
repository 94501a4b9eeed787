"""Images behind one reader: files, stores, members of tars; what is the image's fault and what is the store's."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava import storage
from llava.data.disk_cache import DiskCache
from llava.data.images import ImageError, ImageSource
from llava.data.shards import INDEX_NAME, ShardIndex, pack_images
from llava.errors import DataError, SettingsError, StoreAwayError
from tests.data.test_preprocess import encoded, picture

JPEG = encoded(picture(40, 30), "JPEG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "whole.jpg").write_bytes(JPEG)
    (folder / "cut.jpg").write_bytes(JPEG[: len(JPEG) // 2])
    (folder / "cut.png").write_bytes(encoded(picture(40, 30), "PNG")[:-30])
    (folder / "text.jpg").write_bytes(b"this is no image")
    (folder / "empty.jpg").write_bytes(b"")
    middle = bytearray(JPEG)
    middle[2:4] = b"\xff\xff"
    (folder / "noise.jpg").write_bytes(bytes(middle[:20]) + b"\0" * 200 + JPEG[-2:])
    return folder


def test_a_path_below_the_root_a_uri_and_a_member_are_one_image(root: Path) -> None:
    with tarfile.open(root / "x.tar", "w") as tar:
        tar.add(root / "a" / "whole.jpg", "whole.jpg")
        place = tar.getmembers()[0]
    with tarfile.open(root / "x.tar") as tar:
        place = tar.getmembers()[0]
    source = ImageSource(str(root))
    refs = ["a/whole.jpg", f"file://{root}/a/whole.jpg", f"x.tar#{place.offset_data}+{place.size}"]
    for ref in refs:
        assert source.read(ref) == JPEG
        assert source.load(ref).size == source.header(ref) == (40, 30)
    assert ImageSource(anywhere=True).read(str(root / "a" / "whole.jpg")) == JPEG


def test_a_reference_leads_out_of_the_root_only_where_images_uri_says_so(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.jpg").write_bytes(JPEG)
    (root / "link.jpg").symlink_to(other / "b.jpg")
    (root / "inside.jpg").symlink_to(root / "a" / "whole.jpg")
    outside = [str(other / "b.jpg"), (other / "b.jpg").as_uri(), "../other/b.jpg", "a/../../other/b.jpg", "link.jpg",
               "file:///proc/self/environ", "/etc/passwd", "s3://elsewhere/b.jpg"]  # fmt: skip
    for ref in outside:
        with pytest.raises(ImageError, match="images' root") as caught:
            ImageSource(str(root)).read(ref)
        assert caught.value.problem == "image-path"
    with pytest.raises(ImageError, match="images' root"):
        ImageSource().read("/etc/passwd")
    assert ImageSource(str(root)).read("inside.jpg") == JPEG
    both = ImageSource(f"{root}, {other}")
    for ref in (str(other / "b.jpg"), (other / "b.jpg").as_uri(), "link.jpg", "a/whole.jpg"):
        assert both.read(ref) == JPEG
    with pytest.raises(ImageError, match="images' root"):
        both.read(f"{other}-secret/b.jpg")


def test_a_name_that_no_file_can_have_is_its_rows_fault(root: Path) -> None:
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "fifo.jpg")
    refs = [
        "x" * 304 + ".jpg",
        "nul\0.jpg",
        "half\ud83d.jpg",
        "loop",
        "fifo.jpg",
        "a",
        "a/whole.jpg/b",
        "ftp://x/y.jpg",
    ]
    for ref in refs:
        with pytest.raises(ImageError) as caught:
            ImageSource(str(root)).read(ref)
        assert caught.value.problem in ("image-path", "image-missing"), ref


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png", "text.jpg", "empty.jpg", "noise.jpg"])
def test_what_cannot_be_decoded_is_corrupt(root: Path, name: str) -> None:
    source = ImageSource(str(root))
    for look in (source.load, source.header):
        with pytest.raises(ImageError, match=f"^{name}: .* cannot be decoded") as caught:
            look(name)
        assert caught.value.problem == "image-corrupt"


@pytest.mark.parametrize(
    ("ref", "problem"),
    [
        ("a/absent.jpg", "image-missing"),
        ("a", "image-missing"),
        ("a/whole.jpg/x", "image-missing"),
        ("../secret.jpg", "image-path"),
        ("a/../../secret.jpg", "image-path"),
        ("/etc/hostname", "image-path"),
    ],
)
def test_what_is_not_there_or_not_below_the_root(root: Path, ref: str, problem: str) -> None:
    with pytest.raises(ImageError) as caught:
        ImageSource(str(root)).load(ref)
    assert caught.value.problem == problem


def test_a_huge_image_is_refused_not_decoded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="decompression bomb"):
        ImageSource(str(root)).load("a/whole.jpg")


@pytest.mark.slow
def test_images_from_a_store_pass_the_cache_once(moto_s3: Any) -> None:
    storage.write_bytes(f"{moto_s3.uri}/images/a.jpg", JPEG)
    source = ImageSource(f"{moto_s3.uri}/images")
    assert source.load("a.jpg").size == (40, 30)
    storage.delete(f"{moto_s3.uri}/images/a.jpg")
    assert source.load("a.jpg").size == (40, 30)
    with pytest.raises(ImageError, match="no image at"):
        ImageSource(f"{moto_s3.uri}/images", cache_bytes=0).load("a.jpg")
    again = pickle.loads(pickle.dumps(source))  # our own object, for a worker process
    assert again.images_uri == source.images_uri


@pytest.mark.slow
def test_a_store_that_is_down_is_not_a_missing_image(moto_s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before the first image nor later: an outage in the middle of a run must not drop rows."""
    storage.write_bytes(f"{moto_s3.uri}/images/a.jpg", encoded(picture(20, 20), "JPEG"))
    source = ImageSource(f"{moto_s3.uri}/images")
    assert source.header("a.jpg") == (20, 20)
    with pytest.raises(ImageError, match="no image at"):
        source.load("b.jpg")
    monkeypatch.setenv("LLAVA_STORAGE_DEADLINE_S", "0.2")
    moto_s3.kill()
    for read in (source.header, source.load, ImageSource(f"{moto_s3.uri}/images").load):
        with pytest.raises(StoreAwayError, match="did not answer"):
            read("a.jpg")


@pytest.mark.slow
@pytest.mark.parametrize("server", ["moto_s3", "rclone_s3"])
def test_shards_in_a_store_are_read_by_range(server: str, request: pytest.FixtureRequest) -> None:
    s3 = request.getfixturevalue(server)
    pictures = {
        f"train/{'long' * 40 if i == 3 else ''}{i:03d}.jpg": encoded(picture(20 + i, 20, seed=i), "JPEG")
        for i in range(12)
    }
    uri = f"{s3.uri}/packed"
    index = pack_images([*pictures, *pictures], pictures.__getitem__, uri, shard_bytes=6_000, threads=3)
    assert len(index.shards) > 2
    assert set(index.members) == set(pictures)
    source = ImageSource(uri)
    for ref, data in pictures.items():
        assert source.read(ref) == data
    with pytest.raises(ImageError, match="not in the shards' index") as caught:
        source.read("train/999.jpg")
    assert caught.value.problem == "image-missing"
    names = []
    for name in index.shards:  # ordinary tars
        with tarfile.open(fileobj=io.BytesIO(storage.read_bytes(f"{uri}/{name}"))) as tar:
            for member in tar.getmembers():
                names.append(member.name)
                assert member.offset_data == index.members[member.name][1]
    assert names == list(pictures)


def test_a_pack_that_breaks_off_leaves_no_index(tmp_path: Path) -> None:
    def read(ref: str) -> bytes:
        if ref == "7":
            raise ImageError(ref, "image-missing", "gone", "a file")
        return JPEG

    with pytest.raises(ImageError):
        pack_images([str(i) for i in range(20)], read, str(tmp_path / "out"), shard_bytes=2_000)
    assert not (tmp_path / "out" / INDEX_NAME).exists()
    with pytest.raises(DataError, match="no images to pack"):
        pack_images([], read, str(tmp_path / "out"))


@pytest.mark.parametrize(
    "content", ['{"version": 9}', "[]", '{"version": 1}', '{"version": 1, "shards": [], "members": {"a": [0, 1, 2]}}']
)
def test_another_index_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX_NAME).write_text(content)
    with pytest.raises(DataError, match="llava data pack"):
        ShardIndex.read(str(tmp_path / INDEX_NAME))
    with pytest.raises(DataError):
        ImageSource(str(tmp_path)).read("a")


def test_the_cache_never_grows_past_its_size(tmp_path: Path) -> None:
    cache = DiskCache(10_000, str(tmp_path))

    def use(number: int) -> None:
        key = str(number % 40)
        data = cache.get(key)
        assert data is None or data == key.encode() * 500
        cache.put(key, key.encode() * 500)
        assert cache.total_bytes <= 10_000

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(2_000)))
    on_disk = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(on_disk) == cache.total_bytes <= 10_000
    assert cache.hits + cache.misses == 2_000
    cache.put("large", b"x" * 10_001)
    assert cache.get("large") is None
    cache.put("39", b"y")
    assert cache.get("39") == b"y"


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = DiskCache(3, str(tmp_path))
    for key in "abc":
        cache.put(key, b"x")
    cache.get("a")
    cache.put("d", b"x")
    assert [cache.get(key) is not None for key in "abcd"] == [True, False, True, True]


def test_the_size_of_the_cache_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLAVA_IMAGE_CACHE_GB", "0.5")
    assert ImageSource()._cache_bytes == 500_000_000
    monkeypatch.setenv("LLAVA_IMAGE_CACHE_GB", "much")
    with pytest.raises(SettingsError, match="LLAVA_IMAGE_CACHE_GB: found 'much'"):
        ImageSource()


def test_rows_and_images_are_checked_without_torch() -> None:
    """The light image has neither torch nor transformers."""
    modules = "llava.cli.data, llava.data.check, llava.data.shards"
    code = f"import sys, {modules}; print({{'torch', 'transformers'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
