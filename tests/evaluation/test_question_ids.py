"""No two questions share an id, hence an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llava.errors import DataError
from llava.evaluation.benchmarks import get_benchmark
from llava.evaluation.question_ids import check_ids


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_pope_without_sampling_names_is_refused_and_with_them_read(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"question_id": k, "image": f"{k}.jpg", "text": "Is there a dog?", "label": "yes"} for k in range(1, 9)
    ]
    both = ",".join([write(tmp_path / "one.json", rows), write(tmp_path / "two.json", rows)])
    with pytest.raises(DataError, match=r"8 question ids occur more than once: 'all-1' \(2 times\).* and 3 more"):
        check_ids(get_benchmark("pope").read(both), both)
    named = [write(tmp_path / f"coco_pope_{name}.json", rows) for name in ("random", "popular")]
    questions = get_benchmark("pope").read(",".join(named))
    check_ids(questions, "x")
    assert len(questions) == 16


def test_several_sentences_of_one_annotation_are_questions_of_their_own(tmp_path: Path) -> None:
    row = {"question_id": 7, "image": "a.jpg", "bbox": [1, 2, 3, 4], "width": 10, "height": 10}
    file = write(tmp_path / "r.jsonl", [{**row, "caption": text} for text in ("the dog", "left dog")])
    questions = get_benchmark("refcoco").read(file)
    check_ids(questions, file)
    assert len({question.id for question in questions}) == 2
    again = get_benchmark("refcoco").read(write(tmp_path / "s.jsonl", [{**row, "caption": "the dog"}] * 2))
    with pytest.raises(DataError, match="more than once"):
        check_ids(again, "s")
