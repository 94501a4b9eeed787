"""Rows through every form and back: the same records, the same images."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from llava import cli
from llava.data.images import ImageSource
from llava.data.records import read_records
from tests.data.test_row_sources import COLOURS, colours_of, messages, png, row, write_images

TEXT = {"id": "t", "conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}]}


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "convert", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("llava", "rows.json"),
        ("messages", "rows.jsonl"),
        ("sharegpt", "rows.jsonl"),
        ("parquet", "x.parquet"),
        ("webdataset", "x.tar"),
    ],
)
def test_there_and_back(form: str, name: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    source = tmp_path / "source.json"
    source.write_text(json.dumps([row(number, f"{COLOURS[number]}.png") for number in range(4)] + [TEXT]))
    out, images = tmp_path / "out" / name, str(tmp_path / "images")
    assert call("--data", str(source), "--images", images, "--to", form, "--out", str(out)) == 0
    before, after = read_records(str(source)), read_records(str(out))
    assert not after.problems
    assert [(r.id, r.turns) for r in after.records] == [(r.id, r.turns) for r in before.records]
    root = "" if form in ("parquet", "webdataset") else images
    then, now = ImageSource(images), ImageSource(root, places=after.places)
    for old, new in zip(before.records, after.records, strict=True):
        assert [then.read(ref) for ref in old.images] == [now.read(ref) for ref in new.images]


def test_images_of_a_container_are_written_beside_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa

    inside = [[{"bytes": png(COLOURS[number]), "path": None}] for number in range(4)]
    table = pa.table({"images": inside, "messages": [messages(number) for number in range(4)]})
    pq.write_table(table, tmp_path / "x.parquet")
    out = tmp_path / "rows.json"
    assert call("--data", str(tmp_path / "x.parquet"), "--out", str(out)) == 0
    assert f"{out}.images" in capsys.readouterr().out
    assert colours_of(str(out), f"{out}.images") == COLOURS


def test_parquet_has_the_columns_that_trl_reads(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    (tmp_path / "rows.json").write_text(json.dumps([row(0, "red.png")]))
    out = tmp_path / "x.parquet"
    images = str(tmp_path / "images")
    assert call("--data", str(tmp_path / "rows.json"), "--images", images, "--to", "parquet", "--out", str(out)) == 0
    table = pq.read_table(out)
    assert table.column_names == ["id", "messages", "images"]
    said = [{"role": "user", "content": "<image>\nColour?"}, {"role": "assistant", "content": "red"}]
    assert table.to_pylist()[0]["messages"] == said
    assert json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["images"] == [{"_type": "Image"}]


def test_an_unknown_form_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--data", "x.json", "--to", "csv", "--out", str(tmp_path / "o")) == 2
    assert "webdataset" in capsys.readouterr().err
