"""Visual Genome's regions: `region_descriptions.json` with `image_data.json` beside it, for sizes and folders.

Each region is a box with a phrase of its own: LLaVA-1.5's region rows were made from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llava import storage
from llava.errors import DataError, RowError
from llava.expansion.sources.checks import is_box, is_id, is_side
from llava.expansion.sources.columns import DESCRIBED, Columns
from llava.expansion.sources.json_stream import JsonStream


class VisualGenomeReader:
    """Fills columns from Visual Genome's files.

    Args:
        image_prefix: put before `VG_100K/<id>.jpg` (`vg`).
    """

    def __init__(self, image_prefix: str) -> None:
        self.columns = Columns()
        self._prefix = image_prefix.strip("/")
        self._phrases: dict[str, int] = {}

    def read(self, regions: Sequence[str], image_data: Sequence[str], limit: int = 0) -> Columns:
        """All images with a region, in order of their ids.

        Raises:
            DataError: a file is not JSON, there is no image data, or no region is in a known image.
        """
        if not image_data:
            raise DataError(
                f"{', '.join(regions)}: regions without their images; expected Visual Genome's image_data.json beside "
                "it, which has their sizes and folders"
            )
        hashes = [self._read(uri, self._image) for uri in image_data]
        hashes += [self._read(uri, self._regions) for uri in regions]
        self.columns.category_names = {number: phrase for phrase, number in self._phrases.items()}
        return self.columns.finish(hashes, limit, gated=False)

    def _read(self, uri: str, take: Any) -> str:
        stream = JsonStream(storage.as_local(uri), uri)
        for _, index, row in stream:
            take(uri, index, row)
        return stream.sha256

    def _image(self, uri: str, index: int, row: Any) -> None:
        found = row if isinstance(row, dict) else {}
        key, url = found.get("image_id", found.get("id")), found.get("url")
        width, height, coco = found.get("width"), found.get("height"), found.get("coco_id")
        if not (is_id(key) and isinstance(url, str) and url.count("/") >= 2 and is_side(width) and is_side(height)):
            expected = "an object with image_id, url, and width and height in pixels"
            self.columns.problems.append(RowError(uri, index, "(row)", row, expected, problem="image-row"))
            return
        path = "/".join(url.split("/")[-2:])
        path = f"{self._prefix}/{path}" if self._prefix else path
        self.columns.images[int(key or 0)] = (path, int(width or 0), int(height or 0), coco if is_id(coco) else None)

    def _regions(self, uri: str, index: int, row: Any) -> None:
        regions = row.get("regions") if isinstance(row, dict) else None
        if not isinstance(regions, list):
            self.columns.rows_read += 1
            expected = "an object with a list of regions"
            self.columns.problems.append(RowError(uri, index, "regions", row, expected, problem="region-row"))
            return
        for region in regions:
            self.columns.rows_read += 1
            if not self._region(region, row.get("id")):
                expected = "image_id, a phrase, and x, y, width and height with width and height above 0"
                self.columns.problems.append(RowError(uri, index, "regions", region, expected, problem="region-row"))

    def _region(self, region: Any, image: Any) -> bool:
        try:
            key = region.get("image_id", image)
            phrase = " ".join(region["phrase"].split()).rstrip(". ")
            x, y, width, height = region["x"], region["y"], region["width"], region["height"]
            if not (is_id(key) and phrase and is_box(x, y, width, height)):
                return False
            number = self._phrases.setdefault(phrase, len(self._phrases))
            self.columns.box(key, number, (x, y, width, height), DESCRIBED)
        except (TypeError, KeyError, AttributeError, OverflowError):
            return False
        return True
