"""The same benchmarks as zips and other systems leave their files: one folder more, other line ends, other files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.test_layouts import image, mmbench, mme, read, write


def test_mme_as_its_newer_zip_unpacks_and_as_a_mac_leaves_it(tmp_path: Path) -> None:
    """`MME_Benchmark` around the subtasks, CRLF and a byte order mark in the text files, `._` files beside them."""
    release = mme(tmp_path)
    flat = {(q.images, q.text, q.expected) for q in read("mme", tmp_path)}
    inner = release / "MME_Benchmark"
    inner.mkdir()
    for subtask in ("color", "artwork", "existence"):
        (release / subtask).rename(inner / subtask)
    for path in list(inner.rglob("*.txt")):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
    for folder in (release, inner):
        (folder / "eval_tool").mkdir()
        (folder / "eval_tool/readme.txt").write_text("How to score")
    for folder in (tmp_path, release, inner):
        assert {(q.images, q.text, q.expected) for q in read("mme", folder)} == flat


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_that_went_through_windows(tmp_path: Path, end: str) -> None:
    """A byte order mark in front, and lines that end as there."""
    asked = {"question_id": 1, "image": "1.jpg", "text": "Is there a dog in the image?", "label": "yes"}
    mmbench(tmp_path / "mmbench_dev_20230712.tsv", answers=True)
    for sampling in ("random", "popular", "adversarial"):
        write(tmp_path / f"coco/coco_pope_{sampling}.json", asked)
    image(tmp_path / "val2014/1.jpg")
    plain = {name: read(name, tmp_path) for name in ("pope", "mmbench")}
    for path in (tmp_path / "mmbench_dev_20230712.tsv", *(tmp_path / "coco").iterdir()):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", end.encode()))
    assert {name: read(name, tmp_path) for name in plain} == plain
