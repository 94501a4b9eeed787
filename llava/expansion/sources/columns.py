"""The internal record of every annotated source, held as columns: images by a number, their captions and boxes.

118,287 images with 591k captions and 860k boxes take about 200 MB instead of several GiB. Adapters fill it row by row,
in any order, and `finish` it; from then on it is a `Corpus`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from llava.errors import DataError, RowError
from llava.expansion.sources.corpus import AnnotatedImage, Box
from llava.manifest import sha256

CROWD = 1
"""Flag of a box around several things, or of a category that is not annotated fully in its image."""
DESCRIBED = 2
"""Flag of a box whose category is a description of it."""

_Whole = npt.NDArray[np.int64]


class Columns:
    """Images with captions and boxes, in the order of their keys.

    Attributes:
        categories: names of all categories, for the gates; empty where an image may hold things of a category that
            nobody has annotated in it (LVIS, Open Images) or where boxes have descriptions instead.
    """

    def __init__(self) -> None:
        self.problems: list[RowError] = []
        self.rows_read = 0
        self.categories: tuple[str, ...] = ()
        self.sha256 = ""
        self.images: dict[int, tuple[str, int, int, int | None]] = {}
        self.category_names: dict[int, str] = {}
        self.partial: dict[int, frozenset[int]] = {}
        self._caption_text: list[str] = []
        self._caption_image = array("q")
        self._box_image = array("q")
        self._box_category = array("q")
        self._box_xywh = array("d")
        self._box_flags = array("b")

    def caption(self, key: int, text: str) -> None:
        """A caption of the image `key`."""
        self._caption_image.append(key)
        self._caption_text.append(" ".join(text.split()))

    def box(self, key: int, category: int, xywh: Sequence[float], flags: int = 0) -> None:
        """A box in the image `key`: corner, width and height in pixels."""
        self._box_xywh.extend(xywh)
        self._box_image.append(key)
        self._box_category.append(category)
        self._box_flags.append(flags)

    def finish(self, hashes: Sequence[str], limit: int, *, gated: bool = True) -> Columns:
        """Sort and check everything.

        Args:
            hashes: of the files read.
            limit: only the first so many images; 0: all.
            gated: the boxes are complete enough for gates to hold replies against them.

        Raises:
            DataError: no image has a caption or a box, or a box is of a category without a name.
        """
        self.sha256 = hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode())
        caption_image, box_image = _whole(self._caption_image), _whole(self._box_image)
        known = np.array(sorted(self.images), dtype=np.int64)
        self._orphans(caption_image, known, "caption")
        self._orphans(box_image, known, "box")
        # An image without either gives no row of any kind.
        ids = np.intersect1d(known, np.union1d(caption_image, box_image))
        if not len(ids):
            raise DataError("annotations: no image has a caption or a box; expected rows with matching image ids")
        if limit:
            ids = ids[:limit]
        self._ids: list[int] = ids.tolist()
        order = np.argsort(caption_image, kind="stable")
        self._caption_order: list[int] = order.tolist()
        self._caption_slice = _bounds(caption_image[order], ids)
        box_order = np.argsort(box_image, kind="stable")
        self._box_slice = _bounds(box_image[box_order], ids)
        xywh = np.frombuffer(self._box_xywh, dtype=np.float64).reshape(-1, 4) if self._box_xywh else np.empty((0, 4))
        self._xywh_B4 = xywh[box_order]
        category = _whole(self._box_category)
        self._category_B = category[box_order]
        flags = np.frombuffer(self._box_flags, dtype=np.int8) if self._box_flags else np.empty(0, np.int8)
        self._flags_B = flags[box_order]
        unknown = set(np.unique(category).tolist()) - set(self.category_names)
        if unknown:
            raise DataError(f"annotations: category ids {sorted(unknown)[:5]} are not in the list 'categories'")
        if gated:
            self.categories = tuple(self.category_names[key] for key in sorted(self.category_names))
        return self

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        names, nothing = self.category_names, frozenset[int]()
        for position, key in enumerate(self._ids):
            path, width, height, image_id = self.images[key]
            low, high = self._caption_slice[position]
            captions = tuple(self._caption_text[k] for k in self._caption_order[low:high])
            low, high = self._box_slice[position]
            partial = self.partial.get(key, nothing)
            boxes = tuple(
                Box(names[category], x, y, w, h, bool(flags & CROWD) or category in partial, bool(flags & DESCRIBED))
                for category, (x, y, w, h), flags in zip(
                    self._category_B[low:high].tolist(),
                    self._xywh_B4[low:high].tolist(),
                    self._flags_B[low:high].tolist(),
                    strict=True,
                )
            )
            yield AnnotatedImage(path, image_id, width, height, captions, boxes)

    def _orphans(self, rows: _Whole, known: _Whole, what: str) -> None:
        for index in np.flatnonzero(~np.isin(rows, known)).tolist():
            expected = "the id of a row in 'images'"
            self.problems.append(
                RowError(f"{what}s", index, "image_id", int(rows[index]), expected, problem="image-unknown")
            )


def _whole(numbers: array[int]) -> _Whole:
    return np.frombuffer(numbers, dtype=np.int64) if numbers else np.empty(0, np.int64)


def _bounds(sorted_rows: _Whole, ids: _Whole) -> list[tuple[int, int]]:
    """For each id the slice of `sorted_rows` that equals it."""
    low, high = np.searchsorted(sorted_rows, ids, "left"), np.searchsorted(sorted_rows, ids, "right")
    return list(zip(low.tolist(), high.tolist(), strict=True))
