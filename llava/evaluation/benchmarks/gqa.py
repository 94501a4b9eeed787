"""GQA (Hudson and Manning 2019): compositional questions with one answer each.

`questions_uri`: the official `testdev_balanced_questions.json` (or another split): an object of questions by id.
"""

from __future__ import annotations

from llava import storage
from llava.errors import DataError
from llava.evaluation import question_files
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question
from llava.evaluation.normalise import exact, lenient


class GQA(Benchmark):
    """Exact match after lower case and a final period; kinds are GQA's structural types."""

    name = "gqa"

    def read(self, uri: str) -> list[Question]:
        questions = []
        for file in question_files.files(uri):
            data = storage.read_json(file)
            if not isinstance(data, dict) or not data:
                raise DataError(f"{file}: expected an object of questions by id, as GQA ships it")
            for index, (key, row) in enumerate(data.items()):
                image = question_files.text(file, index, row, "imageId") + ".jpg"
                text = question_files.text(file, index, row, "question") + SHORT_ANSWER
                kind = str((row.get("types") or {}).get("structural") or "all")
                questions.append(
                    Question(key, (image,), text, question_files.text(file, index, row, "answer"), kind, image)
                )
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        same = exact if profile == "llava-1.5" else lenient
        return float(same(answer) == same(question.expected))
