"""The held-out questions: true, unambiguous, and of little use to a model that guesses."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from demo.questions import QUESTION_KINDS, all_questions, answers_of, draw_question
from demo.scenes import Scene, Shape, sample_scene
from demo.world import Picture, benchmark_rows, held_out_scenes, write_world


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return held_out_scenes(0, 300)


@pytest.fixture(scope="module")
def rows(scenes: list[Scene]) -> list[dict[str, str]]:
    return benchmark_rows(0, [Picture(3001 + index, scene) for index, scene in enumerate(scenes)])


def _shape(kind: str, colour: str, size: str, cell: int) -> Shape:
    return Shape(kind, colour, size, cell, ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)))


SCENE = Scene(
    (_shape("circle", "red", "small", 0), _shape("circle", "blue", "large", 4), _shape("star", "red", "large", 8))
)


@pytest.mark.parametrize(
    ("kind", "question", "answer"),
    [
        ("colour", "What color is the star?", "red"),
        ("colour", "What color is the shape in the center?", "blue"),
        ("shape", "What shape is the blue object?", "circle"),
        ("shape", "What shape is at the bottom right?", "star"),
        ("position", "Where is the red circle?", "top left"),
        ("count", "How many shapes are there?", "three"),
        ("count", "How many circles are there?", "two"),
        ("count", "How many red shapes are there?", "two"),
        ("presence", "Is there a red star?", "yes"),
        ("presence", "Is there a blue star?", "no"),
        ("presence", "Is there an orange ring?", "no"),
        ("presence", "Is there a square?", "no"),
        ("presence", "Is there anything on the left?", "no"),
        ("presence", "Is there anything in the center?", "yes"),
        ("size", "Is the red circle large or small?", "small"),
    ],
)
def test_answers_by_hand(kind: str, question: str, answer: str) -> None:
    assert {asked.question: asked.answer for asked in all_questions(SCENE, kind)}[question] == answer


@pytest.mark.parametrize("question", ["What color is the circle?", "What shape is the red object?"])
def test_a_question_with_two_right_answers_is_never_asked(question: str) -> None:
    assert question not in {asked.question for kind in QUESTION_KINDS for asked in all_questions(SCENE, kind)}


def test_no_scene_answers_one_question_in_two_ways() -> None:
    rng = np.random.default_rng(2)
    for _ in range(100):
        scene = sample_scene(rng)
        for kind in QUESTION_KINDS:
            answers: dict[str, str] = {}
            for asked in all_questions(scene, kind):
                assert answers.setdefault(asked.question, asked.answer) == asked.answer
                assert asked.answer in answers_of(kind)
            assert answers or kind in ("colour", "shape")


def test_every_row_is_true_of_its_scene(scenes: list[Scene], rows: list[dict[str, str]]) -> None:
    assert 600 <= len(rows) <= 1000
    for row in rows:
        scene = scenes[int(row["image"].removeprefix("val2017/").removesuffix(".jpg")) - 3001]
        truth = {asked.question: asked.answer for asked in all_questions(scene, row["kind"])}
        assert truth[row["question"]] == row["answer"]
    assert len({row["question_id"] for row in rows}) == len(rows)
    assert len({(row["image"], row["question"]) for row in rows}) == len(rows)
    assert len({row["image"] for row in rows}) > 250


def test_answers_of_a_kind_are_equally_frequent(rows: list[dict[str, str]]) -> None:
    for kind in QUESTION_KINDS:
        answers = Counter(row["answer"] for row in rows if row["kind"] == kind)
        assert set(answers) == set(answers_of(kind))
        assert max(answers.values()) - min(answers.values()) <= 1


def test_knowing_the_question_alone_is_of_little_use(rows: list[dict[str, str]]) -> None:
    """The best guess from a question's first words, fitted on the benchmark itself, stays below 45 %."""
    by_opening: dict[str, Counter[str]] = {}
    for row in rows:
        by_opening.setdefault(" ".join(row["question"].split()[:3]), Counter())[row["answer"]] += 1
    best = sum(max(answers.values()) for answers in by_opening.values()) / len(rows)
    assert best < 0.45


def test_drawing_with_an_answer_gives_that_answer_or_nothing() -> None:
    rng = np.random.default_rng(0)
    assert draw_question(SCENE, "count", rng, "four") is None
    drawn = [draw_question(SCENE, "presence", rng, "no") for _ in range(200)]
    assert all(asked is not None and asked.answer == "no" for asked in drawn)
    # The hard ones, whose colour and kind both occur but not together, are not left to chance (1 in 45).
    assert sum(asked is not None and asked.question == "Is there a blue star?" for asked in drawn) > 15


def test_the_file_holds_the_rows(tmp_path: Path) -> None:
    write_world(tmp_path, train=2, held_out=10, seed=1)
    lines = (tmp_path / "annotations" / "questions_val.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines
    for line in lines:
        row = json.loads(line)
        assert set(row) == {"question_id", "image", "question", "answer", "kind"}
        assert (tmp_path / row["image"]).is_file()
