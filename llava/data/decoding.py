"""From an image file's bytes to RGB, in bounded memory whatever the file says of its size.

A PNG of 700 kB can hold 13,300 x 13,300 pixels of one colour: 530 MB decoded, several times that while it is converted.
So an image is opened, its size looked at, and only then decoded:

- up to `LLAVA_MAX_IMAGE_MEGAPIXELS` (default 50) it is decoded as it is;
- a larger JPEG is decoded at half, a quarter or an eighth of its sides, which its format does without the whole (the
  tower sees 336 or a few times 336 pixels a side);
- anything else that is larger is `image-too-large`, its row's fault.

The pixels that all threads of a process decode at once are bounded too: large images wait for each other.
"""

from __future__ import annotations

import functools
import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llava.data.image_error import ImageError
from llava.errors import SettingsError

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_MEGAPIXELS = 50.0
_SMALL_PIXELS = 4_000_000  # 12 MB: never waits
START_BYTES, END_BYTES = 32 << 10, 256
"""Of a file in a store: what `header_of_ends` is given. The frame header of nearly all files stands in the first."""
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "MPO", "PPM", "AVIF")


def decode(data: bytes, ref: str, *, least: tuple[int, int] | None = None) -> Image.Image:
    """RGB pixels, transparency on white as the hub's processors have it; an animation's first frame.

    Args:
        least: width and height in pixels that are enough: a JPEG is decoded at a half, a quarter or an eighth of its
            sides where that is not less. Training never says so, because it scales by other filters.

    Raises:
        ImageError: `image-corrupt`, or `image-too-large`.
    """
    from PIL import Image

    image = _open(data, ref)
    if least is not None:
        image.draft(None, least)
    with _room_for(image.width * image.height):
        try:
            if image.mode == "RGB" and image.info.get("transparency") is None:
                image.load()
                return image
            if "A" in image.getbands() or image.info.get("transparency") is not None:
                whole = image.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", whole.size, (255, 255, 255, 255)), whole).convert("RGB")
            return image.convert("RGB")
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        except Exception as error:
            raise _corrupt(data, ref, error) from error


def header(data: bytes, ref: str) -> tuple[int, int]:
    """(width, height) that `decode` will give, with as little work as tells that the file seems whole.

    A JPEG must begin and end as one; where the end is not what it should be, and for other formats, the image is
    decoded.

    Raises:
        ImageError: as `decode`.
    """
    if data[:2] == b"\xff\xd8" and data.rstrip(b"\0")[-2:] == b"\xff\xd9":
        image = _open(data, ref)
    else:
        image = decode(data, ref)
    return image.width, image.height


def header_of_ends(start: bytes, end: bytes, ref: str) -> tuple[int, int] | None:
    """As `header`, of a JPEG or PNG file of which only the first and the last bytes are at hand.

    Returns:
        None where these bytes do not tell: read the file whole.

    Raises:
        ImageError: `image-too-large`.
    """
    jpeg = start[:2] == b"\xff\xd8" and end.rstrip(b"\0")[-2:] == b"\xff\xd9"
    png = start[:8] == b"\x89PNG\r\n\x1a\n" and end.endswith(b"IEND\xaeB`\x82")
    if not (jpeg or png):
        return None
    try:
        image = _open(start, ref)
    except ImageError as error:
        if error.problem == "image-too-large":
            raise
        return None  # its frame header lies further back, behind a large profile or preview
    return image.width, image.height


def _open(data: bytes, ref: str) -> Image.Image:
    """The image, not decoded, at a size that may be decoded."""
    from PIL import Image

    most = _most_pixels()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound below is stricter
            image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large(ref, str(error), most) from error
    # Opening a damaged file raises OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise _corrupt(data, ref, error) from error
    width, height = image.size
    scale = 1
    while width * height > most * scale * scale and scale < 8 and image.format == "JPEG":
        scale *= 2
    if scale > 1:
        # A JPEG decodes at 1/2, 1/4 and 1/8 of its sides from a part of its coefficients.
        image.draft(None, (-(-width // scale), -(-height // scale)))
    if image.width * image.height > most:
        raise _too_large(ref, f"{width} x {height} pixels", most)
    return image


def _too_large(ref: str, detail: str, most: float) -> ImageError:
    expected = f"at most {most / 1e6:g} megapixels (LLAVA_MAX_IMAGE_MEGAPIXELS), or a JPEG"
    return ImageError(ref, "image-too-large", detail, expected)


def _corrupt(data: bytes, ref: str, error: Exception) -> ImageError:
    detail = f"{len(data)} bytes that cannot be decoded: {error}".replace(f"{io.BytesIO.__name__}", "bytes")
    return ImageError(ref, "image-corrupt", detail, "a whole JPEG, PNG, GIF, WebP, BMP or TIFF file")


@functools.cache
def _most_pixels() -> float:
    value = os.environ.get("LLAVA_MAX_IMAGE_MEGAPIXELS", "") or str(DEFAULT_MEGAPIXELS)
    try:
        most = float(value) * 1e6
    except ValueError:
        most = -1.0
    if not 0 < most <= 170e6:  # above that Pillow itself refuses
        raise SettingsError(f"LLAVA_MAX_IMAGE_MEGAPIXELS: found {value!r}; expected a number above 0 and up to 170")
    return most


_changed = threading.Condition()
_being_decoded = 0


@contextmanager
def _room_for(pixels: int) -> Iterator[None]:
    """Wait until the pixels under way and these are together at most the bound; small images never wait."""
    global _being_decoded
    if pixels <= _SMALL_PIXELS:
        yield
        return
    with _changed:
        _changed.wait_for(lambda: not _being_decoded or _being_decoded + pixels <= _most_pixels())
        _being_decoded += pixels
    try:
        yield
    finally:
        with _changed:
            _being_decoded -= pixels
            _changed.notify_all()
