"""Images that come with their captions in one file: webdataset shards, and tables of Hugging Face's `datasets`.

Rows name an image in a shard by its place in it (`00003.tar#1024+15000`), as training reads it. A table gives an image
only with all that stands around it, so its images are written once to `images_uri`, a tar for each table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from llava import storage
from llava.data.row_sources import TAR, form_of
from llava.data.tables import EMBEDDED, unpacked
from llava.data.webdataset import tar_rows
from llava.errors import DataError, RowError
from llava.expansion.sources.checks import coco_id
from llava.expansion.sources.corpus import AnnotatedImage
from llava.expansion.sources.lists import captioned
from llava.json_lines import lines_in


class ContainerCorpus:
    """Images of shards or tables, in the order of the files and their rows.

    Args:
        uris: `.tar`, `.parquet` or `.arrow` files.
        images_uri: root of the images; where shards lie elsewhere, the folder that holds them is meant.
        limit: only the first so many images; 0: all.

    Raises:
        DataError: a file is not of its form, holds no usable row, or has images and `images_uri` is empty.
    """

    categories: tuple[str, ...] = ()

    def __init__(self, uris: Sequence[str], images_uri: str, limit: int = 0) -> None:
        self.problems: list[RowError] = []
        self.rows_read = 0
        self._root = images_uri.split(",")[0].strip()
        self._captions: dict[str, list[str]] = {}
        self._taken: dict[str, str] = {}
        digest = hashlib.sha256()
        for uri in uris:
            for index, row in enumerate(self._shard(uri) if form_of(uri) == TAR else self._table(uri)):
                self.rows_read += 1
                try:
                    image, captions = captioned(uri, index, row)
                except RowError as problem:
                    self.problems.append(problem)
                    continue
                digest.update(f"{image}\n{captions}\n".encode())
                if limit and len(self._captions) >= limit and image not in self._captions:
                    break
                self._captions.setdefault(image, []).extend(captions)
        if not self._captions:
            first = f"; the first problem: {self.problems[0]}" if self.problems else ""
            raise DataError(f"{', '.join(uris)}: no usable row; expected images with captions{first}")
        self.sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._captions)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        for image, captions in self._captions.items():
            yield AnnotatedImage(image, coco_id(image), 0, 0, tuple(dict.fromkeys(captions)))

    def _shard(self, uri: str) -> Iterator[Any]:
        root = f"{self._root.rstrip('/')}/"
        name = uri.removeprefix(root) if self._root and uri.startswith(root) else uri.rpartition("/")[2]
        self._take_name(name, uri)
        for row in tar_rows(uri):
            if isinstance(row, dict):
                _rename(row, uri, name)
            yield row

    def _table(self, uri: str) -> Iterator[Any]:
        lines, tar = unpacked(uri)
        name = f"{uri.rpartition('/')[2].rpartition('.')[0]}.tar"
        self._take_name(name, uri)
        put = False
        with lines.open("rb") as file:
            for _, line in lines_in(file):
                row = json.loads(line)
                if isinstance(row, dict) and _rename(row, EMBEDDED, name) and not put:
                    self._put(uri, name, tar)
                    put = True
                yield row

    def _put(self, uri: str, name: str, tar: Any) -> None:
        if not self._root:
            raise DataError(f"{uri}: images_uri: empty; the table's images are written there, once, as {name}")
        target = storage.join(self._root, name)
        found, size = storage.size(target), tar.stat().st_size
        if found is None:
            storage.upload(tar, target)
        elif found != size:
            raise DataError(
                f"{target}: found {found:,} bytes; expected the {size:,} of the images in {uri}; move it away, or name "
                "another images_uri"
            )

    def _take_name(self, name: str, uri: str) -> None:
        if self._taken.setdefault(name, uri) != uri:
            raise DataError(f"{uri} and {self._taken[name]} are both {name!r} below images_uri; rename one of them")


def _rename(row: dict[str, Any], before: str, after: str) -> bool:
    """Name the row's image by where it will be found; True where it lies in the container."""
    image = row.get("image")
    if not isinstance(image, str) or not image.startswith(f"{before}#"):
        return False
    row["image"] = after + image[len(before) :]
    return True
