"""A benchmark's images: by reference or inline, loaded by threads, blanked for the baseline that may not see."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from llava.data.images import ImageError, ImageSource, decode

_THREADS = 8


class Images:
    """Loads images; `data:` URIs are decoded, every other reference is read below `images_uri`."""

    def __init__(self, images_uri: str, *, anywhere: bool = False) -> None:
        self._source = ImageSource(images_uri, anywhere=anywhere)

    def load(self, reference: str) -> Image.Image:
        """One image, RGB.

        Raises:
            ImageError: missing or not decodable.
        """
        if not reference.startswith("data:"):
            return self._source.load(reference)
        try:
            data = base64.b64decode(reference.partition(",")[2])
        except ValueError as error:
            raise ImageError(reference[:40], "image-corrupt", str(error), "a base64 image") from error
        return decode(data, reference[:40])

    def load_all(self, references: Sequence[str]) -> tuple[dict[str, Image.Image], dict[str, ImageError]]:
        """Images by reference, each read once, and the errors of those that cannot be read."""
        found: dict[str, Image.Image] = {}
        errors: dict[str, ImageError] = {}

        def one(reference: str) -> None:
            try:
                found[reference] = self.load(reference)
            except ImageError as error:
                errors[reference] = error

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(one, dict.fromkeys(references)))
        return found, errors


def blank(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """An image of the same size in one colour."""
    return Image.new("RGB", image.size, colour)
