"""Suites: names to columns, columns to folders, figures to the table people quote."""

from __future__ import annotations

from pathlib import Path

import pytest

from llava.errors import DataError, SettingsError
from llava.evaluation.statistics import Interval
from llava.evaluation.suite import places, suite_of
from llava.evaluation.table import as_text, quoted

# Table 3 and 4 of arXiv:2310.03744v2, LLaVA-1.5 with Vicuna-7B and Vicuna-13B.
PAPER = {
    "VQAv2": (78.5, 80.0), "GQA": (62.0, 63.3), "VizWiz": (50.0, 53.6), "SQA-IMG": (66.8, 71.6),
    "TextVQA": (58.2, 61.3), "POPE": (85.9, 85.9), "MME": (1510.7, 1531.3), "MMB": (64.3, 67.7), "MMB-CN": (58.3, 63.6),
    "SEED": (58.6, 61.6), "LLaVA-W": (65.4, 72.5), "MM-Vet": (31.1, 36.1),
}  # fmt: skip
FOLDERS = (
    "vqav2", "gqa", "vizwiz", "scienceqa", "textvqa", "pope", "MME", "mmbench", "mmbench_cn", "seed_bench",
    "llava-bench-in-the-wild", "mm-vet",
)  # fmt: skip


def test_llava_1_5_is_the_paper_s_table() -> None:
    suite = suite_of("llava-1.5")
    columns, rows = quoted(suite, {})
    assert columns == ["model", *PAPER]
    for row, which in zip(rows, (0, 1), strict=True):
        assert [float(str(value)) for value in row[1:]] == [values[which] for values in PAPER.values()]


def test_the_folders_of_llava_1_5_are_found_by_the_names_they_have(tmp_path: Path) -> None:
    for name in FOLDERS:
        (tmp_path / name).mkdir()
    found = places(suite_of("llava-1.5"), str(tmp_path), "")
    assert [Path(questions).name for _, questions, _ in found] == list(FOLDERS)
    (tmp_path / "pope").rmdir()
    (tmp_path / "seed_bench").rmdir()
    with pytest.raises(DataError, match=r"no folder for pope \(pope or POPE\), seed \(seed or seed_bench .*name fewer"):
        places(suite_of("llava-1.5"), str(tmp_path), "")
    assert len(places(suite_of("gqa,mme"), str(tmp_path), "")) == 2


def test_one_benchmark_is_no_suite_and_takes_its_places_as_they_are() -> None:
    suite = suite_of("pope")
    assert not suite.several
    [(column, questions, images)] = places(suite, "a.json,b.json", "images")
    assert (column.key, questions, images) == ("pope", "a.json,b.json", "images")


def test_a_file_says_which_and_where(tmp_path: Path) -> None:
    own = tmp_path / "counting.py"
    own.write_text(
        "from llava.evaluation.benchmarks.gqa import GQA\nclass Counting(GQA):\n    name = 'counting-things'\n"
    )
    file = tmp_path / "mine.yaml"
    file.write_text(
        "title: mine\nbenchmarks:\n- {benchmark: pope, questions: 'x/pope', images: s3://b/val, scale: 100}\n"
        f"- {{benchmark: {own}, questions: /data/c.json, title: Counting, digits: 2}}\n"
        "published:\n- {model: theirs, values: {pope: 85.94, counting: 1}}\n"
    )
    suite = suite_of(str(file))
    assert [column.key for column in suite.benchmarks] == ["pope", "counting"]
    found = [(questions, images) for _, questions, images in places(suite, "root", "pictures")]
    assert found == [("root/x/pope", "s3://b/val"), ("/data/c.json", "pictures")]
    columns, rows = quoted(suite, {"ours": {"pope": Interval(0.8594, 0.8, 0.9, 10), "counting": "judge"}})
    assert columns == ["model", "pope", "Counting"]
    assert rows == [["ours", "85.9", "judge"], ["theirs", "85.9", "1.00"]]
    assert as_text(columns, [["m", None, "x"]]) == "model  pope  Counting\nm         –         x"


def test_wrong_suites_are_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="gqa more than once"):
        suite_of("gqa, pope, gqa")
    with pytest.raises(SettingsError, match="benchmark: found 'popes'; expected one of"):
        suite_of("gqa,popes")
    file = tmp_path / "s.yaml"
    file.write_text("benchmarks:\n- {benchmark: pope, limits: 3}\n")
    with pytest.raises(SettingsError, match=r"s.yaml: benchmarks.0.limits: unknown field.*limit"):
        suite_of(str(file))
    with pytest.raises(DataError, match="expected the folder that holds each benchmark's folder"):
        places(suite_of("gqa,pope"), "questions.json", "")
