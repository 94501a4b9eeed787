"""Answers on disk: found again, never those of another model, whole in the end."""

from __future__ import annotations

import json
from pathlib import Path

from llava.evaluation.benchmark import Question
from llava.evaluation.predictions import PredictionLog, fingerprint

QUESTIONS = [Question(str(k), (f"{k}.jpg",), "q", "a", "kind", f"{k}.jpg") for k in range(5)]


def test_answers_are_found_again_batch_by_batch(tmp_path: Path) -> None:
    log = PredictionLog(str(tmp_path), "finetuned", "model-1")
    log.add({"0": "red", "3": "blau — ü\n"})
    log.add({"1": ""})
    again = PredictionLog(str(tmp_path), "finetuned", "model-1")
    assert again.answers == {"0": "red", "3": "blau — ü\n", "1": ""}
    again.add({"2": "x", "4": "y"})  # does not overwrite a part
    assert len(PredictionLog(str(tmp_path), "finetuned", "model-1").answers) == 5
    again.finish(QUESTIONS, {str(k): {"llava-1.5": 1.0, "robust": 0.0} for k in range(5)})
    rows = [json.loads(line) for line in (tmp_path / "finetuned.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert rows[3] == {**rows[3], "answer": "blau — ü\n", "expected": "a", "scores": {"llava-1.5": 1.0, "robust": 0.0}}
    assert sorted(
        path.name for path in tmp_path.iterdir() if list(path.parent.glob(f"{path.name}/*")) or path.is_file()
    ) == ["finetuned.jsonl"]
    assert PredictionLog(str(tmp_path), "finetuned", "model-1").answers == again.answers


def test_another_models_answers_are_not_taken(tmp_path: Path) -> None:
    PredictionLog(str(tmp_path), "finetuned", "model-1").add({"0": "red"})
    assert PredictionLog(str(tmp_path), "finetuned", "model-2").answers == {}
    assert PredictionLog(str(tmp_path), "blank", "model-1").answers == {}


def test_a_fingerprint_tells_settings_apart_and_is_stable() -> None:
    assert fingerprint("m", 16, [("a", 1)]) == fingerprint("m", 16, [["a", 1]])
    assert fingerprint("m", 16) != fingerprint("m", 17) != fingerprint("n", 17)
