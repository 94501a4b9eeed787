"""COCO's form, told by its content: `images`, `annotations` with `caption` or `bbox`, `categories`.

COCO 2014 and 2017, LVIS, Objects365, Roboflow's exports, and whatever else is written so; several files about the same
images (captions and instances) are read as one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llava import storage
from llava.errors import DataError, RowError
from llava.expansion.sources.checks import coco_id, is_box, is_id, is_side
from llava.expansion.sources.columns import CROWD, Columns
from llava.expansion.sources.json_stream import JsonStream

_COCO_FOLDER = re.compile(r"(?:train|val|test|unlabeled)20\d\d")
_IN_BRACKETS = re.compile(r"\s*\([^)]*\)$")


class CocoReader:
    """Fills columns from files of COCO's form.

    Args:
        image_prefix: put before each `file_name` (`train2017`).
    """

    def __init__(self, image_prefix: str) -> None:
        self.columns = Columns()
        self._prefix = image_prefix.strip("/")
        self._federated = False

    def read(self, uris: Sequence[str], limit: int = 0) -> Columns:
        """All images that have a caption or a box, in order of image id.

        Args:
            limit: only the first so many images; 0: all.

        Raises:
            DataError: a file is absent, empty, not JSON, lacks a list, is about other images, or lists none.
        """
        hashes = [self._read(uri) for uri in uris]
        return self.columns.finish(hashes, limit, gated=not self._federated)

    def _read(self, uri: str) -> str:
        stream = JsonStream(storage.as_local(uri), uri)
        seen: set[str] = set()
        boxes = annotations = 0
        for key, index, row in stream:
            if index == -2:
                seen.add(key)
            elif index >= 0 and key == "annotations":
                self.columns.rows_read += 1
                annotations += 1
                boxes += self._annotation(uri, index, row)
            elif index >= 0 and key == "images":
                self._image_row(uri, index, row)
            elif index >= 0 and key == "categories":
                self._category_row(uri, index, row)
        for key in ("images", "annotations", "categories") if boxes else ("images", "annotations"):
            if key not in seen:
                found = ", ".join(sorted(seen)) or "none"
                raise DataError(f"{uri}: no list {key!r}; expected a file of COCO's form; lists found: {found}")
        if not annotations:
            raise DataError(f"{uri}: the list 'annotations' is empty; expected captions or boxes of images")
        return stream.sha256

    def _image_row(self, uri: str, index: int, row: Any) -> None:
        columns = self.columns
        key: Any = row.get("id") if isinstance(row, dict) else None
        path = self._path(row) if isinstance(row, dict) else ""
        if not is_id(key) or not path:
            expected = "an object with a number id and a text file_name (or coco_url)"
            columns.problems.append(RowError(uri, index, "images", row, expected, problem="image-row"))
            return
        width, height = row.get("width", 0), row.get("height", 0)
        if not is_side(width) or not is_side(height):
            expected = "width and height in pixels, above 0"
            columns.problems.append(
                RowError(uri, index, "images.width", (width, height), expected, problem="image-size")
            )
            return
        if (before := columns.images.get(key)) is not None:
            if _name(before[0]) != _name(path):
                raise DataError(
                    f"{uri}: images[{index}]: id {key} is {path!r} here and {before[0]!r} before; expected files about "
                    "the same images; expand others on their own"
                )
            return
        columns.images[key] = (path, int(width), int(height), coco_id(path))
        partial = row.get("not_exhaustive_category_ids")
        if isinstance(partial, list):
            self._federated = True
            if partial:
                columns.partial[key] = frozenset(one for one in partial if is_id(one))

    def _path(self, row: dict[str, Any]) -> str:
        name, url = row.get("file_name"), row.get("coco_url")
        if isinstance(name, str) and name:
            return f"{self._prefix}/{name}" if self._prefix else name
        if not isinstance(url, str) or url.count("/") < 2:
            return ""
        # LVIS spreads its splits over COCO's folders: the address says which.
        folder, _, name = url.rpartition("/")
        folder = folder.rpartition("/")[2]
        above, _, last = self._prefix.rpartition("/")
        root = above if _COCO_FOLDER.fullmatch(last) else self._prefix
        return "/".join(part for part in (root, folder, name) if part)

    def _category_row(self, uri: str, index: int, row: Any) -> None:
        if not isinstance(row, dict) or not is_id(row.get("id")) or not isinstance(row.get("name"), str):
            raise DataError(f"{uri}: categories[{index}]: found {row!r}; expected an object with id and name")
        # LVIS writes cap_(headwear) and baseball_bat.
        name = _IN_BRACKETS.sub("", row["name"].replace("_", " ")).strip() or row["name"]
        if self.columns.category_names.setdefault(row["id"], name) != name:
            raise DataError(
                f"{uri}: categories[{index}]: id {row['id']} is {name!r} here and "
                f"{self.columns.category_names[row['id']]!r} before; expected files with the same categories"
            )

    def _annotation(self, uri: str, index: int, row: Any) -> bool:
        """Take in what the row has; True where it is about a box."""
        if isinstance(row, dict) and ("bbox" in row or "category_id" in row):
            self._box_row(uri, index, row)
            if "caption" not in row:
                return True
            self._caption_row(uri, index, row)
            return True
        self._caption_row(uri, index, row)
        return False

    def _caption_row(self, uri: str, index: int, row: Any) -> None:
        try:
            key, text = row["image_id"], row["caption"]
            if is_id(key) and text.strip():
                self.columns.caption(key, text)
                return
        except (TypeError, KeyError, AttributeError):
            pass
        expected = "an object with a number image_id and a non-empty text caption, or with bbox and category_id"
        self.columns.problems.append(RowError(uri, index, "annotations", row, expected, problem="caption-row"))

    def _box_row(self, uri: str, index: int, row: dict[str, Any]) -> None:
        try:
            x, y, width, height = row["bbox"]
            key, category = row["image_id"], row["category_id"]
            if is_id(key) and is_id(category) and is_box(x, y, width, height):
                crowd = row.get("iscrowd") or row.get("isfake")  # Objects365 marks reflections and drawings
                self.columns.box(key, category, (x, y, width, height), CROWD if crowd else 0)
                return
        except (TypeError, KeyError, ValueError, OverflowError):
            pass
        shown = {k: v for k, v in row.items() if k != "segmentation"}
        expected = "image_id, category_id and bbox [x, y, width, height] with width and height above 0"
        self.columns.problems.append(RowError(uri, index, "annotations", shown, expected, problem="box-row"))


def _name(path: str) -> str:
    return path.rpartition("/")[2]
