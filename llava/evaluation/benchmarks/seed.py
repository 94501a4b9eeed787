"""SEED-Bench (Li et al. 2023): multiple choice over twelve abilities; the image part.

`questions_uri`: the official `SEED-Bench.json`; images below `images_uri` by `data_id`.
"""

from __future__ import annotations

from llava import storage
from llava.errors import DataError
from llava.evaluation import choices, question_files
from llava.evaluation.benchmark import Benchmark, Profile, Question


class Seed(Benchmark):
    """Accuracy: exactly the letter; `robust` also takes `A.`, `(A)` and an option's text."""

    name = "seed"

    def read(self, uri: str) -> list[Question]:
        [file] = question_files.files(uri)
        data = storage.read_json(file)
        abilities = {number: name for name, number in (data.get("question_type") or {}).items()}
        questions = []
        for index, row in enumerate(question_files.table(file, "questions")):
            if row.get("data_type", "image") != "image":
                continue
            options = [question_files.text(file, index, row, f"choice_{letter}") for letter in "abcd"]
            text = choices.ask(question_files.text(file, index, row, "question"), options)
            image, letter = (
                question_files.text(file, index, row, "data_id"),
                question_files.text(file, index, row, "answer"),
            )
            key = question_files.text(file, index, row, "question_id")
            kind = str(abilities.get(row.get("question_type_id"), row.get("question_type_id", "all")))
            gold = {"letter": letter, "options": options}
            questions.append(Question(key, (image,), text, letter, kind, image, gold))
        if not questions:
            raise DataError(f"{file}: no image questions in it")
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        if profile == "llava-1.5":
            return float(choices.letter_only(answer) == question.gold["letter"])
        return float(choices.understood(answer, question.gold["options"]) == question.gold["letter"])
