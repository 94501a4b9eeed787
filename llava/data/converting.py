"""Rows written in another form: LLaVA JSON, messages (TRL, OpenAI), ShareGPT, Parquet, webdataset.

What is read is a `Record`, so that any form becomes any other. References to image files stay as they are; images that
lie inside the rows' own container are written beside the new rows as shards of `llava data pack`.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llava import extras, storage
from llava.data.images import ImageSource
from llava.data.records import Record, row_from_record
from llava.errors import SettingsError

FORMS = ("llava", "messages", "sharegpt", "parquet", "webdataset")
_ENDINGS = {"PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}
_ROWS_A_GROUP = 100
_ROLES = {"human": "user", "gpt": "assistant"}


def convert(records: Sequence[Record], form: str, out: str, images: ImageSource, own: frozenset[str]) -> str:
    """Write rows in another form.

    Args:
        form: one of `FORMS`.
        out: file to write; local for `parquet` and `webdataset` before it is put where it belongs.
        images: where the rows' images are read.
        own: names of containers that the rows' images lie in (`RecordFile.places`).

    Returns:
        Where the images of the new rows start: a folder of shards beside `out`, or empty where that has not changed.

    Raises:
        SettingsError: an unknown form, or pyarrow is missing.
        ImageError: an image that has to be copied cannot be read.
    """
    if form == "parquet":
        _upload(out, lambda path: _write_parquet(path, records, images))
        return ""
    if form == "webdataset":
        _upload(out, lambda path: _write_tar(path, records, images))
        return ""
    if form not in FORMS:
        raise SettingsError(f"--to: found {form!r}; expected one of {', '.join(FORMS)}")
    names = _names(records, own)
    moved = (record if not names else _renamed(record, names) for record in records)
    if form == "llava":
        storage.write_json(out, [row_from_record(record) for record in moved], indent=1)
    else:
        made = _messages if form == "messages" else _sharegpt
        storage.write_text(out, "".join(json.dumps(made(record), ensure_ascii=False) + "\n" for record in moved))
    if not names:
        return ""
    from llava.data.shards import pack_images

    reference = {name: ref for ref, name in names.items()}
    pack_images(list(reference), lambda name: images.read_image(reference[name]), f"{out}.images")
    return f"{out}.images"


def _names(records: Iterable[Record], own: frozenset[str]) -> dict[str, str]:
    """reference -> name, for images that have no file of their own."""
    inside = (
        ref for record in records for ref in record.images if ref.startswith("data:") or ref.rpartition("#")[0] in own
    )
    return {ref: f"{number:09d}" for number, ref in enumerate(dict.fromkeys(inside))}


def _renamed(record: Record, names: dict[str, str]) -> Record:
    return Record(record.id, tuple(names.get(ref, ref) for ref in record.images), record.turns, record.index)


def _messages(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {"id": record.id, "images": list(record.images)}
    row["messages"] = [{"role": _ROLES[turn.role], "content": turn.text} for turn in record.turns]
    return row


def _sharegpt(record: Record) -> dict[str, Any]:
    turns = [{"from": turn.role, "value": turn.text} for turn in record.turns]
    return {"id": record.id, "conversations": turns, "images": list(record.images)}


def _write_parquet(path: Path, records: Sequence[Record], images: ImageSource) -> None:
    """Columns `id`, `messages`, `images`, as `datasets` and TRL read them, the images inside."""
    extras.require("--to parquet", "train", ["pyarrow"])
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    features = {
        "id": {"dtype": "string", "_type": "Value"},
        "messages": [{name: {"dtype": "string", "_type": "Value"} for name in ("role", "content")}],
        "images": [{"_type": "Image"}],
    }
    schema = pa.schema(
        [("id", pa.string()), ("messages", pa.list_(turn)), ("images", pa.list_(image))],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(records), _ROWS_A_GROUP):
            rows = []
            for record in records[start : start + _ROWS_A_GROUP]:
                row = _messages(record)
                row["images"] = [{"bytes": images.read(ref), "path": None} for ref in record.images]
                rows.append(row)
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _write_tar(path: Path, records: Sequence[Record], images: ImageSource) -> None:
    with tarfile.open(path, "w") as tar:
        for number, record in enumerate(records):
            for name, data in _members(record, images):
                info = tarfile.TarInfo(f"{number:09d}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _members(record: Record, images: ImageSource) -> Iterator[tuple[str, bytes]]:
    row = row_from_record(record)
    row.pop("image", None)
    yield "json", json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")
    for number, ref in enumerate(record.images):
        data = images.read(ref)
        yield f"{number}.{_ending(data)}", data


def _ending(data: bytes) -> str:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return _ENDINGS.get(image.format or "", "jpg")
    except OSError:
        return "jpg"


def _upload(out: str, write: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(prefix="llava-convert-") as scratch:
        path = Path(scratch) / "rows"
        write(path)
        storage.upload(path, out)
