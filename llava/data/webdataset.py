"""Rows in webdataset tars: members that share a name up to its first dot make one row, and images stay where they are.

`000001.jpg` with `000001.txt` is an image with its caption; with `000001.json` the JSON holds the row, in any form of
`row_forms` (`caption` for a caption), and the members are its images (`000001.0.jpg`, `000001.1.jpg` for several).
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

from llava.data.range_file import BUFFER, RangeFile
from llava.errors import DataError
from llava.parsing import Malformed, parse_rows

_IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
_CAPTIONS = ("txt", "caption", "text")
_MOST_TEXT = 16 << 20


class _Bounded(io.BufferedReader):
    """A file of which nothing larger than `_MOST_TEXT` is read at once: a tar may say that a name has a gigabyte."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _MOST_TEXT + tarfile.RECORDSIZE:
            raise tarfile.ReadError(f"a header of {size or -1:,} bytes")
        return super().read(size)


def tar_rows(uri: str) -> Iterator[Any]:
    """Each row, its images as `<tar>#<offset>+<size>`; a row that is no JSON comes as the text that it is.

    Raises:
        DataError: not an uncompressed tar, or it ends too early.
    """
    try:
        with _Bounded(RangeFile(uri), BUFFER) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            key, parts = "", dict[str, tuple[tarfile.TarInfo, bytes | None]]()
            for member in tar:
                if not member.isreg():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                if f"{folder}/{stem}" != key:
                    if parts:
                        yield _row(uri, key, parts)
                    key, parts = f"{folder}/{stem}", {}
                parts[ending.lower()] = (member, _text(uri, tar, member, ending.lower()))
            if parts:
                yield _row(uri, key, parts)
    except tarfile.TarError as error:
        raise DataError(f"{uri}: not an uncompressed tar, or cut short: {error}") from error


def _text(uri: str, tar: tarfile.TarFile, member: tarfile.TarInfo, ending: str) -> bytes | None:
    if ending.rpartition(".")[2] not in ("json", *_CAPTIONS):
        return None
    if member.size > _MOST_TEXT:
        raise DataError(f"{uri}: {member.name}: {member.size:,} bytes of text; expected at most {_MOST_TEXT:,}")
    file = tar.extractfile(member)
    return file.read() if file is not None else b""


def _row(uri: str, key: str, parts: dict[str, tuple[tarfile.TarInfo, bytes | None]]) -> Any:
    images = [
        f"{uri}#{member.offset_data}+{member.size}"
        for ending, (member, _) in sorted(parts.items(), key=lambda part: _order(part[0]))
        if ending.rpartition(".")[2] in _IMAGES
    ]
    row: Any = {"id": key.strip("/")}
    told = parts.get("json")
    if told is not None and told[1] is not None:
        try:
            row = parse_rows(told[1])
        except Malformed:
            return told[1].decode("utf-8", "replace")
        if not isinstance(row, dict):
            return row
        row.setdefault("id", key.strip("/"))
    caption = next((parts[name][1] for name in _CAPTIONS if name in parts), None)
    text = caption.decode("utf-8", "replace").strip() if caption is not None else row.get("caption")
    if not any(name in row for name in ("conversations", "messages", "prompt", "texts", "blip_caption")):
        row["blip_caption"] = text
    if images:
        row.pop("images", None)
        row["image"] = images[0] if len(images) == 1 else images
    return row


def _order(ending: str) -> tuple[int, str]:
    """`0.jpg` before `10.jpg`."""
    first = ending.partition(".")[0]
    return (int(first) if first.isdigit() else -1, ending)
