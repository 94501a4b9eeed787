"""What is known of one image before anything is asked about it: captions, boxes, size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from llava.errors import RowError


@dataclass(frozen=True, slots=True)
class Box:
    """One annotated object; corner, width and height in pixels of the original image.

    Attributes:
        crowd: it holds several of its category, or others of it in the image may have no box.
        described: `category` is a description of just this box.
    """

    category: str
    x: float
    y: float
    width: float
    height: float
    crowd: bool = False
    described: bool = False

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) in pixels."""
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def area(self) -> float:
        """Square pixels."""
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image and its annotations.

    Attributes:
        path: how rows name it: a path below the images root.
        image_id: numeric COCO id, or None where the source has none.
        width: pixels; 0 where the source does not say.
        height: pixels; 0 where the source does not say.
    """

    path: str
    image_id: int | None
    width: int
    height: int
    captions: tuple[str, ...]
    boxes: tuple[Box, ...] = ()

    @property
    def stem(self) -> str:
        """File name without folder and ending; the base of row ids. For a member of a tar: the tar's, and where."""
        path, _, member = self.path.partition("#")
        stem = PurePosixPath(path).stem
        return f"{stem}-{member.partition('+')[0]}" if member else stem

    def corners(self, box: Box, decimals: int) -> tuple[float, float, float, float]:
        """`(x1, y1, x2, y2)` of a box divided by the image's size, within 0..1, rounded."""
        x2, y2 = box.x + box.width, box.y + box.height
        return (
            round(min(max(box.x / self.width, 0.0), 1.0), decimals),
            round(min(max(box.y / self.height, 0.0), 1.0), decimals),
            round(min(max(x2 / self.width, 0.0), 1.0), decimals),
            round(min(max(y2 / self.height, 0.0), 1.0), decimals),
        )


class Corpus(Protocol):
    """A source of images in a fixed order; iterating again gives the same images."""

    categories: tuple[str, ...]
    problems: list[RowError]
    rows_read: int
    sha256: str

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[AnnotatedImage]: ...
