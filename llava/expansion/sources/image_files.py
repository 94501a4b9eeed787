"""What the images themselves say before any is sent: that they can be read, their size, and a hash of their bytes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from llava.data.decoding import header
from llava.data.image_error import ImageError
from llava.data.images import ImageSource

_THREADS = 16  # a store answers many reads at once; hashing and decoding leave the interpreter's lock
_AHEAD = 64


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """One image file.

    Attributes:
        digest: SHA-256 of the file's bytes.
        width: pixels, as the trainer decodes it.
        height: pixels.
        plain: a JPEG without metadata, which can be sent as it stands.
    """

    digest: str
    width: int
    height: int
    plain: bool


def facts_of(data: bytes, path: str) -> ImageFacts:
    """Facts of a file's bytes.

    Raises:
        ImageError: they are no image, or one that is too large.
    """
    width, height = header(data, path)
    return ImageFacts(hashlib.sha256(data).hexdigest(), width, height, _is_plain(data, (width, height)))


def look_at(source: ImageSource, paths: Iterable[str]) -> Iterator[tuple[str, ImageFacts | ImageError]]:
    """`(path, facts)` of every image in the order of `paths`; an `ImageError` where it cannot be used.

    Raises:
        StorageError: the store refuses or does not answer.
    """

    def one(path: str) -> ImageFacts | ImageError:
        try:
            return facts_of(source.read(path), path)
        except ImageError as error:
            return error

    waiting: list[tuple[str, Future[ImageFacts | ImageError]]] = []
    todo = iter(paths)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="llava-look") as pool:
        try:
            while True:
                waiting += [(path, pool.submit(one, path)) for path in islice(todo, _AHEAD - len(waiting))]
                if not waiting:
                    return
                path, future = waiting.pop(0)
                yield path, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _is_plain(data: bytes, size: tuple[int, int]) -> bool:
    """True for a JPEG in RGB or grey of its full size without EXIF: no place of the photographer, no rotation."""
    from PIL import Image

    if data[:2] != b"\xff\xd8":
        return False
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return image.mode in ("RGB", "L") and image.size == size and "exif" not in image.info
