"""The demo world's held-out questions: a JSON line each, `question_id`, `image`, `question`, `answer`, `kind`."""

from __future__ import annotations

from llava.errors import RowError
from llava.evaluation import question_files
from llava.evaluation.benchmark import Benchmark, Profile, Question
from llava.evaluation.normalise import exact, lenient


class World(Benchmark):
    """Exact match after normalisation; any benchmark of short answers in this format can be scored with it."""

    name = "world"

    def read(self, uri: str) -> list[Question]:
        questions, seen = [], set()
        for file in question_files.files(uri):
            for index, row in question_files.json_lines(file):
                own = {
                    field: question_files.text(file, index, row, field)
                    for field in ("question_id", "image", "question", "answer")
                }
                if own["question_id"] in seen:
                    raise RowError(file, index, "question_id", own["question_id"], "an id of its own", problem="row-id")
                seen.add(own["question_id"])
                kind = str(row.get("kind") or "all")
                questions.append(
                    Question(own["question_id"], (own["image"],), own["question"], own["answer"], kind, own["image"])
                )
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        same = exact if profile == "llava-1.5" else lenient
        return float(same(answer) == same(question.expected))
