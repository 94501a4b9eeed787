"""COCO annotations (2014 and 2017 layouts): `captions_*.json`, and optionally `instances_*.json` for boxes.

Held as columns: 118,287 images with 591k captions and 860k boxes take about 200 MB instead of several GiB.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from llava import storage
from llava.errors import DataError, RowError
from llava.expansion.sources.corpus import AnnotatedImage, Box
from llava.expansion.sources.json_stream import JsonStream
from llava.manifest import sha256

_MOST_PIXELS_A_SIDE = 1e6


class CocoCorpus:
    """Images of COCO annotation files, in order of image id.

    Args:
        captions_uris: files with an `images` and an `annotations` list whose rows have `caption`.
        instances_uris: files whose annotations have `bbox` and `category_id`; may be empty.
        image_prefix: put before each `file_name` (`train2017`).
        limit: only the first so many images; 0: all.

    Raises:
        DataError: a file is absent, empty, not JSON, lacks a list, or lists no image.
    """

    def __init__(
        self, captions_uris: Sequence[str], instances_uris: Sequence[str], image_prefix: str, limit: int = 0
    ) -> None:
        self.problems: list[RowError] = []
        self.rows_read = 0
        self.categories: tuple[str, ...] = ()
        self._prefix = image_prefix.strip("/")
        self._images: dict[int, tuple[str, int, int]] = {}
        self._caption_text: list[str] = []
        self._caption_image = array("q")
        self._box_image = array("q")
        self._box_category = array("q")
        self._box_xywh = array("d")
        self._box_crowd = array("b")
        self._category_names: dict[int, str] = {}
        hashes = [self._read(uri, captions=True) for uri in captions_uris]
        hashes += [self._read(uri, captions=False) for uri in instances_uris]
        self.sha256 = hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode())
        self._index(limit)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        names = self._category_names
        for position, image_id in enumerate(self._ids):
            file_name, width, height = self._images[image_id]
            low, high = self._caption_slice[position]
            captions = tuple(self._caption_text[k] for k in self._caption_order[low:high])
            low, high = self._box_slice[position]
            boxes = tuple(
                Box(names[category], x, y, w, h, crowd)
                for category, (x, y, w, h), crowd in zip(
                    self._category_B[low:high].tolist(),
                    self._xywh_B4[low:high].tolist(),
                    self._crowd_B[low:high].tolist(),
                    strict=True,
                )
            )
            image = f"{self._prefix}/{file_name}" if self._prefix else file_name
            yield AnnotatedImage(image, image_id, width, height, captions, boxes)

    def _read(self, uri: str, *, captions: bool) -> str:
        stream = JsonStream(storage.as_local(uri), uri)
        seen: set[str] = set()
        annotation = self._caption_row if captions else self._box_row
        for key, index, row in stream:
            if index == -2:
                seen.add(key)
            elif index >= 0 and key == "annotations":
                self.rows_read += 1
                annotation(uri, index, row)
            elif index >= 0 and key == "images":
                self._image_row(uri, index, row)
            elif index >= 0 and key == "categories":
                self._category_row(uri, index, row)
        wanted = ("images", "annotations") if captions else ("images", "annotations", "categories")
        for key in wanted:
            if key not in seen:
                kind = "captions" if captions else "instances"
                found = ", ".join(sorted(seen)) or "none"
                raise DataError(f"{uri}: no list {key!r}; expected a COCO {kind} file; lists found: {found}")
        return stream.sha256

    def _image_row(self, uri: str, index: int, row: Any) -> None:
        image_id: Any = row.get("id") if isinstance(row, dict) else None
        name = row.get("file_name") if isinstance(row, dict) else None
        if not _is_id(image_id) or not isinstance(name, str) or not name:
            expected = "an object with a number id and a text file_name"
            self.problems.append(RowError(uri, index, "images", row, expected, problem="image-row"))
            return
        width, height = row.get("width", 0), row.get("height", 0)
        if not _positive(width) or not _positive(height):
            expected = "width and height in pixels, above 0"
            self.problems.append(RowError(uri, index, "images.width", (width, height), expected, problem="image-size"))
            return
        self._images[image_id] = (name, int(width), int(height))

    def _category_row(self, uri: str, index: int, row: Any) -> None:
        if not isinstance(row, dict) or not _is_id(row.get("id")) or not isinstance(row.get("name"), str):
            raise DataError(f"{uri}: categories[{index}]: found {row!r}; expected an object with id and name")
        self._category_names[row["id"]] = row["name"]

    def _caption_row(self, uri: str, index: int, row: Any) -> None:
        try:
            image_id, text = row["image_id"], row["caption"]
            if _is_id(image_id) and text.strip():
                self._caption_image.append(image_id)
                self._caption_text.append(" ".join(text.split()))
                return
        except (TypeError, KeyError, AttributeError):
            pass
        expected = "an object with a number image_id and a non-empty text caption"
        self.problems.append(RowError(uri, index, "annotations", row, expected, problem="caption-row"))

    def _box_row(self, uri: str, index: int, row: Any) -> None:
        try:
            x, y, width, height = row["bbox"]
            image_id, category = row["image_id"], row["category_id"]
            numbers = _is_id(image_id) and _is_id(category)
            if numbers and width > 0 and height > 0 and math.isfinite(x + y + width + height):
                self._box_xywh.extend((x, y, width, height))
                self._box_image.append(image_id)
                self._box_category.append(category)
                self._box_crowd.append(1 if row.get("iscrowd") else 0)
                return
        except (TypeError, KeyError, ValueError, OverflowError):
            pass
        shown = {k: v for k, v in row.items() if k != "segmentation"} if isinstance(row, dict) else row
        expected = "image_id, category_id and bbox [x, y, width, height] with width and height above 0"
        self.problems.append(RowError(uri, index, "annotations", shown, expected, problem="box-row"))

    def _index(self, limit: int) -> None:
        caption_image = (
            np.frombuffer(self._caption_image, dtype=np.int64) if self._caption_image else np.empty(0, np.int64)
        )
        box_image = np.frombuffer(self._box_image, dtype=np.int64) if self._box_image else np.empty(0, np.int64)
        known = np.array(sorted(self._images), dtype=np.int64)
        self._orphans(caption_image, known, "caption")
        self._orphans(box_image, known, "box")
        # An image nobody captioned gives no row of any kind.
        ids = np.intersect1d(known, caption_image)
        if not len(ids):
            raise DataError("annotations: no image has a caption; expected COCO captions with matching image ids")
        if limit:
            ids = ids[:limit]
        self._ids: list[int] = ids.tolist()
        order = np.argsort(caption_image, kind="stable")
        self._caption_order: list[int] = order.tolist()
        sorted_images = caption_image[order]
        self._caption_slice = _bounds(sorted_images, ids)
        box_order = np.argsort(box_image, kind="stable")
        self._box_slice = _bounds(box_image[box_order], ids)
        xywh = np.frombuffer(self._box_xywh, dtype=np.float64).reshape(-1, 4) if self._box_xywh else np.empty((0, 4))
        self._xywh_B4 = xywh[box_order]
        category = np.frombuffer(self._box_category, dtype=np.int64) if self._box_category else np.empty(0, np.int64)
        self._category_B = category[box_order]
        crowd = np.frombuffer(self._box_crowd, dtype=np.int8) if self._box_crowd else np.empty(0, np.int8)
        self._crowd_B = crowd[box_order].astype(bool)
        unknown = set(np.unique(category).tolist()) - set(self._category_names)
        if unknown:
            raise DataError(f"instances: category ids {sorted(unknown)[:5]} are not in the list 'categories'")
        self.categories = tuple(self._category_names[key] for key in sorted(self._category_names))

    def _orphans(self, rows: np.ndarray, known: np.ndarray, what: str) -> None:
        for index in np.flatnonzero(~np.isin(rows, known)).tolist():
            expected = "the id of a row in 'images'"
            self.problems.append(
                RowError(f"{what}s", index, "image_id", int(rows[index]), expected, problem="image-unknown")
            )


def _bounds(sorted_rows: np.ndarray, ids: np.ndarray) -> list[tuple[int, int]]:
    """For each id the slice of `sorted_rows` that equals it."""
    low, high = np.searchsorted(sorted_rows, ids, "left"), np.searchsorted(sorted_rows, ids, "right")
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _MOST_PIXELS_A_SIDE


def _is_id(value: Any) -> bool:
    """A whole number that an array of 64-bit integers holds."""
    return type(value) is int and -(1 << 63) <= value < 1 << 63
