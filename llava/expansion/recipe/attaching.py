"""Images inside requests: scaled and encoded as they are sent, or as addresses that the teacher reads itself.

A JPEG without metadata that is small enough travels as it stands; everything else is decoded as training decodes it and
written again as a JPEG, so that no EXIF (place, camera, rotation) leaves the house. The id of a request covers the
hash of the file and what was done to it, never an address: signed ones differ from day to day.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from llava.data.decoding import decode
from llava.data.image_error import ImageError
from llava.data.images import ImageSource
from llava.errors import DataError
from llava.expansion.sources.corpus import AnnotatedImage
from llava.expansion.sources.image_files import ImageFacts


@dataclass(frozen=True)
class ImageForm:
    """How images are shown to a teacher.

    Attributes:
        longest_side: pixels; larger images are scaled down, smaller ones never up; 0: as they are.
        quality: of the JPEG, 1 to 95, where one has to be written.
        url_prefix: put before the image's path to make an address that the teacher reads; it then gets the file as it
            is. Empty: the image is in the request, as a data URI.
    """

    longest_side: int = 1024
    quality: int = 85
    url_prefix: str = ""

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels as the teacher gets it."""
        longest = max(width, height)
        if self.url_prefix or not self.longest_side or longest <= self.longest_side:
            return width, height
        scale = self.longest_side / longest
        return max(1, round(width * scale)), max(1, round(height * scale))


@dataclass(frozen=True, slots=True)
class Attached:
    """One image as part of a request; its bytes are read only when the request is sent."""

    path: str
    facts: ImageFacts
    source: ImageSource
    form: ImageForm

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as the teacher gets it."""
        return self.form.size(self.facts.width, self.facts.height)

    @property
    def as_it_is(self) -> bool:
        """True where the file's own bytes reach the teacher."""
        return bool(self.form.url_prefix) or (self.facts.plain and self.size == (self.facts.width, self.facts.height))

    def key(self) -> str:
        """What of it is part of the request's id: which image, and what was done to it."""
        if self.as_it_is:
            return self.facts.digest
        width, height = self.size
        return f"{self.facts.digest} {width}x{height} q{self.form.quality}"

    def url(self) -> str:
        """A data URI, or the address under which the teacher finds it.

        Raises:
            DataError: the file is not any more what it was when the run began: the id would lie.
            StorageError: the store refuses or does not answer.
        """
        if self.form.url_prefix:
            return f"{self.form.url_prefix.rstrip('/')}/{quote(self.path)}"
        try:
            data = self.source.read(self.path)
            if hashlib.sha256(data).hexdigest() != self.facts.digest:
                raise DataError(f"{self.path}: the image has changed since the run began; run again to ask about it")
            if not self.as_it_is:
                data = self._encoded(data)
        except ImageError as error:
            raise DataError(f"{self.path}: the image was there when the run began: {error}") from error
        return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"

    def _encoded(self, data: bytes) -> bytes:
        from PIL import Image

        image = decode(data, self.path, least=self.size)
        if image.size != self.size:
            # Half as dear as Lanczos, and as sharp as bicubic where an image only gets smaller.
            image = image.resize(self.size, Image.Resampling.HAMMING, reducing_gap=2.0)
        written = io.BytesIO()
        image.save(written, "JPEG", quality=self.form.quality)
        return written.getvalue()


class Attacher:
    """Attaches the images of a job.

    Args:
        facts: of every image that can be used, by its path.
    """

    def __init__(self, source: ImageSource, facts: Mapping[str, ImageFacts], form: ImageForm) -> None:
        self._source, self._facts, self._form = source, facts, form

    def attach(self, image: AnnotatedImage) -> Attached | None:
        """The image for a request; None where its file cannot be used."""
        facts = self._facts.get(image.path)
        return None if facts is None else Attached(image.path, facts, self._source, self._form)
