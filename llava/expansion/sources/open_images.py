"""Open Images: box CSV files, class descriptions, and captions of Localized Narratives.

Boxes are fractions of the image, so their images are looked at for their sizes. Images are verified for some classes
only: a thing without a box may be there all the same, and no gate may hold a reply against it.
"""

from __future__ import annotations

import csv
import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from llava import storage
from llava.data.image_error import ImageError
from llava.data.images import ImageSource
from llava.errors import DataError, RowError
from llava.expansion.sources.checks import is_box
from llava.expansion.sources.columns import CROWD, Columns
from llava.json_lines import lines_in
from llava.parsing import Malformed, parse_rows

_THREADS = 16
BOX_COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")


class OpenImagesReader:
    """Fills columns from Open Images' files.

    Args:
        image_prefix: put before `<ImageID>.jpg` (`train`).
        images_uri: where the images are.
    """

    def __init__(self, image_prefix: str, images_uri: str) -> None:
        self.columns = Columns()
        self._prefix = image_prefix.strip("/")
        self._images_uri = images_uri
        self._keys: dict[str, int] = {}
        self._classes: dict[str, int] = {}
        self._box_key, self._box_class, self._box_flag = array("q"), array("q"), array("b")
        self._corners = array("d")

    def read(self, boxes: Sequence[str], classes: Sequence[str], captions: Sequence[str], limit: int = 0) -> Columns:
        """All images with a box or a caption, in order of first appearance.

        Args:
            limit: only the first so many images; 0: all.

        Raises:
            DataError: a file is not of its form, class descriptions or the images' place are missing.
        """
        if boxes and not classes:
            raise DataError(
                f"{', '.join(boxes)}: boxes without names; expected the class descriptions beside it "
                "(oidv7-class-descriptions-boxable.csv)"
            )
        if boxes and not self._images_uri:
            raise DataError(
                f"{', '.join(boxes)}: images_uri: empty; Open Images gives boxes as fractions, so that the images have "
                "to be looked at for their sizes"
            )
        hashes = [self._class_file(uri) for uri in classes]
        hashes += [self._box_file(uri) for uri in boxes]
        hashes += [self._caption_file(uri) for uri in captions]
        self._measure(limit)
        return self.columns.finish(hashes, limit, gated=False)

    def _class_file(self, uri: str) -> str:
        for row in _table(uri):
            if len(row) >= 2 and row[0] != "LabelName":
                self.columns.category_names[self._classes.setdefault(row[0], len(self._classes))] = (
                    row[1].strip().lower()
                )
        return _digest(uri)

    def _box_file(self, uri: str) -> str:
        rows = _table(uri)
        head = next(rows, [])
        if missing := [name for name in BOX_COLUMNS if name not in head]:
            raise DataError(f"{uri}: no columns {', '.join(missing)}; expected {', '.join(BOX_COLUMNS)}")
        image, label, x1, x2, y1, y2 = (head.index(name) for name in BOX_COLUMNS)
        group = head.index("IsGroupOf") if "IsGroupOf" in head else -1
        for index, row in enumerate(rows):
            self.columns.rows_read += 1
            try:
                left, right, top, bottom = float(row[x1]), float(row[x2]), float(row[y1]), float(row[y2])
                number = self._classes[row[label]]
                if row[image] and is_box(left, top, right - left, bottom - top) and -1 <= min(left, top) <= 1 >= right:
                    self._box_key.append(self._key(row[image]))
                    self._box_class.append(number)
                    self._box_flag.append(CROWD if group >= 0 and row[group] == "1" else 0)
                    self._corners.extend((left, top, right, bottom))
                    continue
            except (ValueError, IndexError, KeyError):
                pass
            expected = "an image id, a described label, and XMin < XMax and YMin < YMax in 0..1"
            self.columns.problems.append(RowError(uri, index, "(row)", row, expected, problem="box-row"))
        return _digest(uri)

    def _caption_file(self, uri: str) -> str:
        with storage.as_local(uri).open("rb") as file:
            for index, line in lines_in(file):
                self.columns.rows_read += 1
                try:
                    row: Any = parse_rows(line)
                    if row["image_id"].strip() and row["caption"].strip():
                        self.columns.caption(self._key(row["image_id"]), row["caption"])
                        continue
                except (Malformed, TypeError, KeyError, AttributeError):
                    pass
                expected = "an object with image_id and caption"
                shown = line[:200].decode("utf-8", "replace")
                self.columns.problems.append(RowError(uri, index, "(row)", shown, expected, problem="caption-row"))
        return _digest(uri)

    def _key(self, image: str) -> int:
        return self._keys.setdefault(image, len(self._keys))

    def _measure(self, limit: int) -> None:
        """Sizes of the images that have boxes, and the boxes in pixels."""
        names = {number: f"{name}.jpg" for name, number in islice(self._keys.items(), limit or None)}
        paths = {number: f"{self._prefix}/{name}" if self._prefix else name for number, name in names.items()}
        self.columns.images = {number: (path, 0, 0, None) for number, path in paths.items()}
        boxed = sorted({key for key in self._box_key if key in paths})
        for key, found in self._sizes(boxed, paths):
            if isinstance(found, ImageError):
                problem = RowError(self._images_uri, key, "image", found.ref, found.expected, problem=found.problem)
                self.columns.problems.append(problem)
            else:
                self.columns.images[key] = (paths[key], *found, None)
        for position, key in enumerate(self._box_key):
            _, width, height, _ = self.columns.images.get(key, ("", 0, 0, None))
            if not width:
                continue
            left, top, right, bottom = self._corners[4 * position : 4 * position + 4]
            xywh = (left * width, top * height, (right - left) * width, (bottom - top) * height)
            self.columns.box(key, self._box_class[position], xywh, self._box_flag[position])

    def _sizes(self, keys: Iterable[int], paths: dict[int, str]) -> Iterator[tuple[int, tuple[int, int] | ImageError]]:
        source = ImageSource(self._images_uri)

        def one(key: int) -> tuple[int, tuple[int, int] | ImageError]:
            try:
                return key, source.header(paths[key])
            except ImageError as error:
                return key, error

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="llava-sizes") as pool:
            yield from pool.map(one, keys)


def _table(uri: str) -> Iterator[list[str]]:
    try:
        with storage.as_local(uri).open(encoding="utf-8-sig", newline="") as file:
            yield from csv.reader(file)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{uri}: cannot be read as a table: {error}") from error


def _digest(uri: str) -> str:
    with storage.as_local(uri).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
