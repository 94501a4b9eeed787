"""Answers on disk: found again, never those of another model, whole in the end."""

from __future__ import annotations

import json
from pathlib import Path

from llava.evaluation.benchmark import Profile, Question
from llava.evaluation.predictions import PredictionLog, fingerprint, question_fingerprints

QUESTIONS = [Question(str(k), (f"{k}.jpg",), "q", "a", "kind", f"{k}.jpg") for k in range(5)]


SCORES: dict[str, dict[Profile, float]] = {str(k): {"llava-1.5": 1.0} for k in range(5)}


def of(model: str) -> dict[str, str]:
    return question_fingerprints(QUESTIONS, model)


def test_answers_are_found_again_batch_by_batch(tmp_path: Path) -> None:
    log = PredictionLog(str(tmp_path), "finetuned", of("model-1"))
    log.add({"0": "red", "3": "blau — ü\n"})
    log.add({"1": ""})
    again = PredictionLog(str(tmp_path), "finetuned", of("model-1"))
    assert again.answers == {"0": "red", "3": "blau — ü\n", "1": ""}
    again.add({"2": "x", "4": "y"})  # does not overwrite a part
    assert len(PredictionLog(str(tmp_path), "finetuned", of("model-1")).answers) == 5
    again.finish(QUESTIONS, {str(k): {"llava-1.5": 1.0, "robust": 0.0} for k in range(5)})
    rows = [json.loads(line) for line in (tmp_path / "finetuned.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert rows[3] == {**rows[3], "answer": "blau — ü\n", "expected": "a", "scores": {"llava-1.5": 1.0, "robust": 0.0}}
    assert sorted(
        path.name for path in tmp_path.iterdir() if list(path.parent.glob(f"{path.name}/*")) or path.is_file()
    ) == ["finetuned.jsonl"]
    assert PredictionLog(str(tmp_path), "finetuned", of("model-1")).answers == again.answers


def test_another_models_answers_are_not_taken(tmp_path: Path) -> None:
    PredictionLog(str(tmp_path), "finetuned", of("model-1")).add({"0": "red"})
    assert PredictionLog(str(tmp_path), "finetuned", of("model-2")).answers == {}
    assert PredictionLog(str(tmp_path), "blank", of("model-1")).answers == {}


def test_a_fingerprint_tells_settings_apart_and_is_stable() -> None:
    assert fingerprint("m", 16, [("a", 1)]) == fingerprint("m", 16, [["a", 1]])
    assert fingerprint("m", 16) != fingerprint("m", 17) != fingerprint("n", 17)


def test_line_ends_that_only_python_knows_do_not_break_an_answer(tmp_path: Path) -> None:
    odd = "one\u2028two\u2029three\u0085four\x0bfive\x0c\x1c\x1d\x1e six"
    log = PredictionLog(str(tmp_path), "finetuned", of("m"))
    log.add({"0": odd, "1": "x"})
    assert PredictionLog(str(tmp_path), "finetuned", of("m")).answers == {"0": odd, "1": "x"}
    log.finish(QUESTIONS, SCORES)
    assert PredictionLog(str(tmp_path), "finetuned", of("m")).answers == {"0": odd, "1": "x"}


def test_a_run_over_more_questions_reuses_a_smaller_ones_and_the_other_way_round(tmp_path: Path) -> None:
    few = {key: value for key, value in of("m").items() if key in "01"}
    log = PredictionLog(str(tmp_path), "finetuned", few)
    log.add({"0": "a", "1": "b"})
    log.finish(QUESTIONS[:2], SCORES)
    log = PredictionLog(str(tmp_path), "finetuned", of("m"))
    assert log.answers == {"0": "a", "1": "b"}
    log.add({"2": "c", "3": "d", "4": "e"})
    log.finish(QUESTIONS, SCORES)
    log = PredictionLog(str(tmp_path), "finetuned", few)
    log.finish(QUESTIONS[:2], SCORES)
    assert len((tmp_path / "finetuned.jsonl").read_text().split("\n")) == 3
    assert len(PredictionLog(str(tmp_path), "finetuned", of("m")).answers) == 5


def test_a_question_that_changed_is_asked_again(tmp_path: Path) -> None:
    from dataclasses import replace

    PredictionLog(str(tmp_path), "finetuned", of("m")).add({"0": "a", "1": "b"})
    changed = [replace(QUESTIONS[0], text="another"), *QUESTIONS[1:]]
    assert PredictionLog(str(tmp_path), "finetuned", question_fingerprints(changed, "m")).answers == {"1": "b"}


def test_what_others_left_among_the_parts_is_not_taken(tmp_path: Path) -> None:
    """A kill in the middle of a write leaves a temporary; editors and stores leave things of their own."""
    log = PredictionLog(str(tmp_path), "finetuned", {"a": "f", "b": "f"})
    log.add({"a": "red"})
    parts = tmp_path / "finetuned.parts"
    (parts / ".000001.jsonl.x7k2").write_text('{"id": "b", "answer": "bl')
    (parts / ".llava-partial-000001.jsonl.q").write_text('{"id": "b", "ans')
    (parts / "000001.jsonl~").write_text("not ours")
    (parts / "000007.jsonl").write_text('{"id": "b"}\n[1]\n{"id": ["b"], "answer": "x", "of": "f"}\n{"id": "b", "ans\n')
    again = PredictionLog(str(tmp_path), "finetuned", {"a": "f", "b": "f"})
    assert again.answers == {"a": "red"}
    again.add({"b": "blue"})
    assert PredictionLog(str(tmp_path), "finetuned", {"a": "f", "b": "f"}).answers == {"a": "red", "b": "blue"}
