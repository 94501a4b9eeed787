"""SEED-Bench as people have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llava.evaluation.benchmarks import get_benchmark
from tests.evaluation.test_layouts import LETTER, image, read, write


def test_seed(tmp_path: Path) -> None:
    row = {
        "question": "How many towels?",
        "choice_a": "One",
        "choice_b": "Two",
        "choice_c": "Three",
        "choice_d": "Four",
    }
    row |= {"answer": "A", "data_id": "1454426_2591111986", "question_id": "101669", "data_type": "image"}
    video: dict[str, Any] = {
        **row,
        "question_id": "5",
        "data_type": "video",
        "data_id": "v.mp4",
        "question_type_id": 10,
    }
    data = {
        "questions": [{**row, "question_type_id": 5}, video],
        "question_type": {"Instances Counting": 5, "Action": 10},
    }
    write(tmp_path / "SEED-Bench.json", data)
    image(tmp_path / "SEED-Bench-image/1454426_2591111986.png")
    (tmp_path / "SEED-Bench-image/1454426_2591111986.png").rename(tmp_path / "SEED-Bench-image/1454426_2591111986")
    [question] = read("seed", tmp_path)
    text = f"How many towels?\nA. One\nB. Two\nC. Three\nD. Four{LETTER}"
    assert question.text == text
    image(tmp_path / "SEED-Bench-video-image/10_5.png")
    both = read("seed", tmp_path)
    assert [item.kind for item in both] == ["Instances Counting", "Action"]
    write(
        tmp_path / "llava-seed-bench.jsonl",
        {"question_id": "101669", "image": "SEED-Bench-image/1454426_2591111986", "text": text, "category": "image"},
        {"question_id": 5, "image": "SEED-Bench-video-image/10_5.png", "text": text, "category": "video"},
    )
    assert read("seed", tmp_path) == both
    seed = get_benchmark("seed")
    figures = seed.figures([seed.scored(item, "A") for item in both[:1]] + [seed.scored(both[1], "B")], "llava-1.5")
    assert (figures["accuracy"].value, figures["accuracy_image"].value, figures["accuracy_video"].value) == (0.5, 1, 0)
    made = seed.submission(str(tmp_path), both, {"101669": "A", "5": "B"})
    assert made is not None
    assert (
        made.data.decode() == '{"question_id": "101669", "prediction": "A"}\n{"question_id": "5", "prediction": "B"}\n'
    )
