"""Questions of one's own in every form, and a benchmark of one's own without a change to the package."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from llava.errors import DataError, RowError, SettingsError
from llava.evaluation import benchmarks
from llava.evaluation.benchmark import Question
from llava.evaluation.benchmarks import get_benchmark

OWN = """
from llava.evaluation.benchmark import Benchmark, Question

class Mine(Benchmark):
    name = "mine"
    def read(self, uri):
        return [Question("1", ("a.jpg",), "Q?", "yes", "all", "a.jpg")]
    def score(self, question, answer, profile):
        return float(answer == question.expected)
"""
LETTERS = "Q?\nA. red\nB. blue\nAnswer with the option's letter from the given choices directly."


def read(path: Path, text: str) -> list[Question]:
    path.write_text(text)
    return get_benchmark("custom").read(str(path))


def test_a_table_a_list_and_lines_say_the_same(tmp_path: Path) -> None:
    lines = (
        '{"id": "a", "image": "1.jpg", "question": "Q?", "options": ["red", "blue"], "answer": "blue"}\n'
        '{"id": "b", "images": ["1.jpg", "2.jpg"], "question": "R?", "answers": ["two", "2"], "kind": "count"}\n'
        '{"id": "c", "image": "3.jpg", "question": "S?"}\n'
    )
    rows = read(tmp_path / "q.jsonl", lines)
    assert [row.text for row in rows] == [LETTERS, "R?", "S?"] and [row.known for row in rows] == [True, True, False]
    assert (rows[0].expected, rows[1].images, rows[1].kind) == ("B", ("1.jpg", "2.jpg"), "count")
    assert read(tmp_path / "q.json", "[" + ",".join(lines.splitlines()) + "]") == rows
    header = ["id", "image", "images", "question", "A", "B", "answer", "answers", "kind"]
    cells = [
        ["a", "1.jpg", "", "Q?", "red", "blue", "B", "", ""],
        ["b", "", "1.jpg|2.jpg", "R?", "", "", "", "two|2", "count"],
        ["c", "3.jpg", "", "S?", "", "", "", "", ""],
    ]
    for name, separator in (("q.csv", ","), ("q.tsv", "\t")):
        table = "\n".join(separator.join(row) for row in [header, *cells]) + "\n"
        found = read(tmp_path / name, table)
        assert [(r.id, r.text, r.images, r.expected, r.known) for r in found] == [
            (r.id, r.text, r.images, r.expected, r.known) for r in rows
        ]
    custom = get_benchmark("custom")
    assert [custom.score(rows[1], said, "llava-1.5") for said in ("Two.", "2", "three")] == [1, 1, 0]
    assert [custom.score(rows[0], said, "llava-1.5") for said in ("B", "(B)", "A", "blue")] == [1, 1, 0, 1]


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(RowError, match="row 0: anwser: found 'x'; expected one of the fields"):
        read(tmp_path / "q.csv", "question,image,anwser\nQ?,a.jpg,x\n")
    with pytest.raises(DataError, match="the header has image more than once"):
        read(tmp_path / "q.csv", "question,image,image\nQ?,a.jpg,x\n")
    with pytest.raises(RowError, match="row 0: answer: found 'green'; expected one of A, B"):
        read(tmp_path / "q.csv", "question,image,A,B,answer\nQ?,a.jpg,red,blue,green\n")


def test_a_benchmark_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    assert get_benchmark(str(file)).name == get_benchmark(f"{file}:Mine").name == "mine"
    with pytest.raises(SettingsError, match="expected a subclass of Benchmark named 'Other'"):
        get_benchmark(f"{file}:Other")
    with pytest.raises(SettingsError, match="expected a local file"):
        get_benchmark("s3://bucket/mine.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    offered = EntryPoints([EntryPoint("theirs", "mine:Mine", benchmarks.GROUP)])
    monkeypatch.setattr(benchmarks, "entry_points", lambda group: offered.select(group=group))
    assert get_benchmark("theirs").read("")[0].expected == "yes"
