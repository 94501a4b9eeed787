"""An image is decoded in bounded memory, whatever its file says of its size."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from llava.data import decoding
from llava.data.decoding import decode, header
from llava.data.image_error import ImageError

REFUSED = """
import resource, sys
import PIL.JpegImagePlugin, PIL.PngImagePlugin
from llava.data.image_error import ImageError
from llava.data.images import ImageSource
source = ImageSource(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for look in (source.load, source.header, source.read_image):
    try:
        look("bomb.png")
    except ImageError as error:
        assert error.problem == "image-too-large", error
    else:
        raise SystemExit("decoded")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def png(width: int, height: int) -> bytes:
    """A grey PNG of one colour, made a row at a time: a few hundred kilobytes however large it is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" + bytes(width)) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(out, "JPEG", quality=60)
    return out.getvalue()


@pytest.fixture(autouse=True)
def _fresh_bound() -> None:
    decoding._most_pixels.cache_clear()


@pytest.mark.slow
def test_a_small_file_of_huge_size_is_its_rows_fault_and_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(13_300, 13_300))
    assert (tmp_path / "bomb.png").stat().st_size < 700_000
    done = subprocess.run([sys.executable, "-c", REFUSED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 30_000, "kilobytes"


def test_a_larger_jpeg_is_decoded_at_a_part_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_MAX_IMAGE_MEGAPIXELS", "0.5")
    data = jpeg(2000, 1000)
    image = decode(data, "a.jpg")
    assert image.size == header(data, "a.jpg") == (1000, 500)
    assert image.getpixel((500, 250)) == pytest.approx((200, 30, 30), abs=6)
    with pytest.raises(ImageError, match="8000 x 8000 pixels; expected at most 0.5 megapixels") as caught:
        decode(jpeg(8000, 8000), "b.jpg")
    assert caught.value.problem == "image-too-large"


def test_at_the_bound_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg(1000, 500)
    whole = decode(data, "a.jpg").tobytes()
    monkeypatch.setenv("LLAVA_MAX_IMAGE_MEGAPIXELS", "0.5")
    decoding._most_pixels.cache_clear()
    assert decode(data, "a.jpg").tobytes() == whole


def test_threads_do_not_decode_more_than_the_bound_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_MAX_IMAGE_MEGAPIXELS", "10")
    data, most, lock = jpeg(2400, 2000), [0], threading.Lock()
    real = Image.Image.load

    def watched(self: Image.Image) -> object:
        with lock:
            most[0] = max(most[0], decoding._being_decoded)
        return real(self)

    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", watched)
    with ThreadPoolExecutor(8) as pool:
        assert {image.size for image in pool.map(lambda _: decode(data, "a.jpg"), range(24))} == {(2400, 2000)}
    assert 4_800_000 <= most[0] <= 10_000_000 and decoding._being_decoded == 0


def test_memory_is_not_left_taken() -> None:
    data = png(3000, 3000)
    decode(data, "a.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(6):
        decode(data, "a.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
