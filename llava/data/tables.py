"""Rows in Parquet files and Arrow folders, as Hugging Face's `datasets` writes them, with their images inside.

Training reads images at random, and a column of Parquet gives one only with the whole row group around it. So a table
is gone through once for a node: its rows become JSON lines, its images a tar beside them, read by range afterwards.
Only a batch of rows is in memory at a time.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from llava import extras, storage
from llava.data.range_file import buffered
from llava.errors import DataError
from llava.node_cache import node_cache, only_one

EMBEDDED = "embedded.tar"
_BATCH = 32  # rows; with images of megabytes still little
_IMAGE_COLUMNS = ("image", "images", "jpg", "jpeg", "png", "webp")


def unpacked(uri: str) -> tuple[Path, Path]:
    """(JSON lines of the rows, tar of their images) of a table, made once for this node.

    Raises:
        DataError: not a Parquet or Arrow file.
        SettingsError: pyarrow is not installed.
    """
    extras.require(f"{uri}: reading it", "train", ["pyarrow"])
    version = hashlib.sha256(json.dumps([uri, storage.size(uri), _changed(uri)]).encode()).hexdigest()[:24]
    folder = node_cache() / f"rows-{version}" / "unpacked"
    with only_one(folder):
        if not (folder / "done").exists():
            _unpack(uri, folder)
            (folder / "done").touch()
    return folder / "rows.jsonl", folder / EMBEDDED


def _changed(uri: str) -> float:
    return 0.0 if storage.is_remote(uri) else storage.local_path(uri).stat().st_mtime


def _unpack(uri: str, folder: Path) -> None:
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as rows, tarfile.open(folder / EMBEDDED, "w") as tar:
        for row in table_rows(uri):
            for name in _IMAGE_COLUMNS:
                if name in row:
                    row[name] = _put(row[name], tar)
            # One row a line, whatever the row: what JSON cannot hold is the row's own fault when it is read.
            rows.write(json.dumps(row, ensure_ascii=False, default=repr) + "\n")


def table_rows(uri: str) -> Iterator[dict[str, Any]]:
    """Each row as plain Python values, a batch in memory at a time.

    Raises:
        DataError: not a Parquet or Arrow file.
    """
    import pyarrow as pa

    try:
        with buffered(uri) as file:
            for batch in _batches(uri, file):
                for row in batch.to_pylist():
                    if "image" not in row and (other := next((n for n in _IMAGE_COLUMNS[2:] if n in row), None)):
                        row["image"] = row.pop(other)
                    yield row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and not isinstance(error, pa.ArrowException):
            raise
        raise DataError(f"{uri}: cannot be read as a table: {str(error).splitlines()[0]}") from error


def _batches(uri: str, file: IO[bytes]) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.ipc
    import pyarrow.parquet

    if uri.lower().endswith(".parquet"):
        yield from pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=_BATCH)
        return
    # `save_to_disk` writes streams, other programs files; a file begins with a mark of its own.
    magic = file.read(6)
    file.seek(0)
    if magic == b"ARROW1":
        reader = pa.ipc.open_file(file)
        batches: Iterator[Any] = (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        batches = iter(pa.ipc.open_stream(file))
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH):
            yield batch.slice(start, _BATCH)


def _put(value: Any, tar: tarfile.TarFile) -> Any:
    """The value with image bytes replaced by references into the tar."""
    if isinstance(value, list):
        return [_put(one, tar) for one in value]
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        return value.get("path") if isinstance(value, dict) and set(value) == {"bytes", "path"} else value
    info = tarfile.TarInfo(f"{len(tar.getmembers()):09d}")
    info.size = len(data)
    start = tar.offset + tarfile.BLOCKSIZE  # a short name has a header of one block
    tar.addfile(info, io.BytesIO(data))
    return f"{EMBEDDED}#{start}+{info.size}"
