"""Rows out of files and folders of every kind, written by other programs' libraries: pyarrow, tarfile, json."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from llava import storage
from llava.data.check import check_rows
from llava.data.images import ImageSource
from llava.data.records import read_records
from llava.data.row_sources import files_of
from llava.data.webdataset import tar_rows
from llava.errors import DataError, SettingsError, UserError
from tests.s3_server import S3Server

COLOURS = ["red", "green", "blue", "white"]


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def row(number: int, image: str) -> dict[str, Any]:
    return {
        "id": str(number),
        "image": image,
        "conversations": [{"from": "human", "value": "<image>\nColour?"}, {"from": "gpt", "value": COLOURS[number]}],
    }


def messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": "Colour?"}, {"role": "assistant", "content": COLOURS[number]}]


def table_of(numbers: list[int]) -> pa.Table:
    images = [[{"bytes": png(COLOURS[number]), "path": None}] for number in numbers]
    return pa.table({"images": images, "messages": [messages(number) for number in numbers]})


def colours_of(uri: str, images_uri: str = "") -> list[str]:
    """The answers, after seeing that each row's image is of that colour."""
    file = read_records(uri)
    assert not file.problems, file.problems
    source = ImageSource(images_uri, places=file.places)
    for record in file.records:
        pixel = source.load(record.images[0]).getpixel((3, 3))
        assert pixel == Image.new("RGB", (1, 1), record.turns[1].text).getpixel((0, 0))
    result = check_rows(file, source)
    assert len(result.good) == len(file.records)
    return [record.turns[1].text for record in file.records]


def write_images(folder: Path) -> None:
    folder.mkdir()
    for colour in COLOURS:
        (folder / f"{colour}.png").write_bytes(png(colour))


def test_several_files_a_folder_and_a_pattern(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "a.json").write_text(json.dumps([row(0, "red.png"), row(1, "green.png")]))
    (rows / "b.jsonl").write_text("".join(json.dumps(row(n, f"{COLOURS[n]}.png")) + "\n" for n in (2, 3)))
    (rows / "dataset_info.json").write_text("{}")
    images = str(tmp_path / "images")
    for uri in (str(rows), f"{rows}/a.json,{rows}/b.jsonl", f"{rows}/*.json*,"):
        if "*" in uri:
            (rows / "dataset_info.json").unlink()
        assert colours_of(uri, images) == COLOURS
    file = read_records(str(rows))
    assert file.total == 4 and file.sha256 == read_records(f"{rows}/a.json, {rows}/b.jsonl").sha256


def test_a_problem_is_named_by_its_own_file_and_row(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([row(0, "red.png")]))
    (tmp_path / "b.json").write_text(json.dumps([row(1, "gone.png"), {"id": "x"}]))
    write_images(tmp_path / "images")
    file = read_records(f"{tmp_path}/a.json,{tmp_path}/b.json")
    result = check_rows(file, ImageSource(str(tmp_path / "images")))
    places = {(problem.file, problem.row, problem.problem) for problem in result.problems}
    assert places == {(f"{tmp_path}/b.json", 0, "image-missing"), (f"{tmp_path}/b.json", 1, "field-missing")}


def test_parquet_with_images_inside(tmp_path: Path) -> None:
    pq.write_table(table_of([0, 1]), tmp_path / "train-00000.parquet", row_group_size=1)
    pq.write_table(table_of([2, 3]), tmp_path / "train-00001.parquet")
    assert colours_of(str(tmp_path)) == COLOURS
    first, again = read_records(str(tmp_path)), read_records(str(tmp_path))
    assert first.sha256 == again.sha256 and list(first.records) == list(again.records)


def test_parquet_with_binary_and_path_columns(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    captions = pa.table({"jpg": [png("red")], "blip_caption": ["red"]})
    pq.write_table(captions, tmp_path / "binary.parquet")
    assert colours_of(str(tmp_path / "binary.parquet")) == ["red"]
    paths = pa.table({"image": ["blue.png"], "messages": [messages(2)]})
    pq.write_table(paths, tmp_path / "paths.parquet")
    assert colours_of(str(tmp_path / "paths.parquet"), str(tmp_path / "images")) == ["blue"]


def test_an_arrow_folder_as_save_to_disk_leaves_it(tmp_path: Path) -> None:
    """`datasets` 4: `data-00000-of-00001.arrow` is a stream; beside it stand state and info."""
    table = table_of([0, 1, 2, 3])
    with (
        pa.OSFile(str(tmp_path / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table, max_chunksize=3)
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "dataset_info.json").write_text("{}")
    assert colours_of(str(tmp_path)) == COLOURS
    with pa.OSFile(str(tmp_path / "file.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)
    assert colours_of(str(tmp_path / "file.arrow")) == COLOURS


def test_webdataset_tars(tmp_path: Path) -> None:
    def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))

    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        add(tar, "a/000.png", png("red"))
        add(tar, "a/000.txt", b"red\n")
        add(tar, "a/001.json", json.dumps({"messages": messages(1)}).encode())
        add(tar, "a/001.png", png("green"))
    with tarfile.open(tmp_path / "00001.tar", "w") as tar:
        add(tar, "002.json", json.dumps({"caption": "blue"}).encode())
        add(tar, "002.png", png("blue"))
        add(tar, "003.0.png", png("white"))
        add(tar, "003.json", json.dumps(row(3, "ignored.png")).encode())
    assert colours_of(str(tmp_path)) == COLOURS
    assert [record.id for record in read_records(str(tmp_path)).records] == ["a/000", "a/001", "002", "3"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A hub with one data set, owner/colours, over HTTP as huggingface_hub asks it; the files are the fixture's."""
    files: dict[str, bytes] = {}
    commit = "0" * 40

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            data, status = b'{"error": "Repository not found"}', 404
            if path.startswith("/api/datasets/owner/colours"):
                siblings = [{"rfilename": name} for name in files]
                listed = {"id": "owner/colours", "sha": commit, "siblings": siblings, "private": False}
                tree = [{"type": "file", "path": name, "size": len(held), "oid": "1"} for name, held in files.items()]
                data, status = json.dumps(tree if "/tree/" in path else listed).encode(), 200
            elif path.startswith(f"/datasets/owner/colours/resolve/{commit}/"):
                data, status = files[path.partition(f"{commit}/")[2]], 200
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield files
    server.shutdown()
    thread.join()


def test_a_data_set_of_the_hub(tmp_path: Path, hub: dict[str, bytes]) -> None:
    for name, numbers in (
        ("data/train-0.parquet", [0, 1]),
        ("data/train-1.parquet", [2]),
        ("data/test-0.parquet", [3]),
    ):
        path = tmp_path / "x.parquet"
        pq.write_table(table_of(numbers), path)
        hub[name] = path.read_bytes()
    hub["README.md"] = b"# Colours"
    assert sorted(colours_of("hf://datasets/owner/colours")) == sorted(COLOURS)
    assert colours_of("hf://datasets/owner/colours@main:data/train-*.parquet") == COLOURS[:3]
    with pytest.raises(SettingsError, match="the hub does not give it"):
        read_records("hf://datasets/owner/gone")
    with pytest.raises(SettingsError, match="owner/name"):
        read_records("hf://datasets/nothing")


def test_containers_in_a_store(tmp_path: Path, moto_s3: S3Server) -> None:
    """Tables and tars are read by ranges; a tar's images stay where they are."""
    pq.write_table(table_of([0, 1]), tmp_path / "a.parquet")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        for number in (2, 3):
            for ending, data in (("txt", COLOURS[number].encode()), ("png", png(COLOURS[number]))):
                info = tarfile.TarInfo(f"{number}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    (tmp_path / "c.jsonl").write_text(json.dumps({"messages": messages(0)}))
    for name in ("a.parquet", "b.tar", "c.jsonl"):
        storage.upload(tmp_path / name, f"{moto_s3.uri}/rows/{name}")
    assert colours_of(f"{moto_s3.uri}/rows/a.parquet,{moto_s3.uri}/rows/b.tar") == COLOURS
    assert len(read_records(f"{moto_s3.uri}/rows/*.jsonl").records) == 1
    with pytest.raises(UserError, match="several forms"):
        read_records(f"{moto_s3.uri}/rows")


def test_a_data_uri_is_its_own_image(tmp_path: Path) -> None:
    import base64

    uri = f"data:image/png;base64,{base64.b64encode(png('red')).decode()}"
    content = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "Colour?"}]
    line = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "red"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(line))
    assert colours_of(str(tmp_path / "rows.jsonl")) == ["red"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("x.parquet", b"not parquet", "cannot be read as a table"),
        ("x.arrow", b"not arrow at all", "cannot be read as a table"),
        ("x.tar", b"not a tar" * 100, "not an uncompressed tar"),
        ("x.json", b"  ", "empty file"),
        ("x.json", b"[]", "no rows"),
        ("x.jsonl", b"{", "not JSON"),
    ],
)
def test_a_file_that_is_none_is_named(name: str, data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=said) as error:
        read_records(str(tmp_path / name))
    assert name in str(error.value)


def test_folders_that_hold_no_one_form_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file of rows in it"):
        files_of(str(tmp_path))
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "b.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="several forms"):
        files_of(str(tmp_path))


def test_hostile_references_are_their_rows_faults(tmp_path: Path) -> None:
    """An unknown scheme, 304 characters, NUL, a lone surrogate, half an emoji, a loop of links, a FIFO, a folder."""
    write_images(tmp_path / "images")
    (tmp_path / "images/loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "images/fifo.png")
    (tmp_path / "images/folder.png").mkdir()
    hostile = [
        "gopher://host/x.png",
        "http://127.0.0.1:1/x.png",
        "a" * 300 + ".png",
        "a\0b.png",
        "\udc80.png",
        "\ud83d.png",
        "loop.png",
        "fifo.png",
        "folder.png",
        "/etc/hostname",
        "../x.png",
        "data:image/png;base64,!!",
        "s3://",
        "file://",
        "x.tar#5+10",
        "",
        "   ",
    ]
    lines = [json.dumps(row(0, ref)) for ref in hostile] + [json.dumps(row(n, f"{COLOURS[n]}.png")) for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    file = read_records(str(tmp_path / "rows.jsonl"))
    result = check_rows(file, ImageSource(str(tmp_path / "images")), depth="full")
    assert [file.records[position].turns[1].text for position in result.good] == COLOURS
    assert sorted({problem.row for problem in result.problems}) == list(range(len(hostile)))
    for problem in result.problems:
        str(problem).encode()  # can be printed and stored


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_tar_whose_header_says_a_gigabyte_is_refused_unread(kind: bytes, tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 1 << 30
    place = tmp_path / "rows.tar"
    with place.open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate(3 << 30)  # sparse: it takes no room here
    with pytest.raises(DataError, match=r"not an uncompressed tar, or cut short: a header of 1,073,741,824 bytes"):
        list(tar_rows(str(place)))
