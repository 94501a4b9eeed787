"""DocVQA (Mathew et al. 2021): questions about scanned pages, several accepted spellings each.

Read from the official release (`val_v1.0_withQT.json` or `val_v1.0.json`, images in `documents`), the test split of
which only the challenge's server can score, or from VLMEvalKit's `DocVQA_VAL.tsv`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llava.evaluation import layouts, question_files, submission, tables
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question
from llava.evaluation.layouts import Form, Part
from llava.evaluation.submission import Submission

SOURCE = "https://rrc.cvc.uab.es/?ch=17 (Task 1)"
SERVER = "Robust Reading Competition, DocVQA task 1"
THRESHOLD = 0.5


class DocVQA(Benchmark):
    """ANLS: 1 less the normalised edit distance to the nearest spelling, 0 below one half."""

    name = "docvqa"
    headline = "anls"
    forms = (
        Form(
            "the official validation split",
            (Part("val", SOURCE, ("val_v1.0_withQT.json", "val_v1.0.json", "val/val_v1.0.json")),),
        ),
        Form("VLMEvalKit's table", (Part("table", "VLMEvalKit", ("DocVQA_VAL.tsv",)),)),
        Form("the official test split", (Part("test", SOURCE, ("test_v1.0.json", "test/test_v1.0.json")),)),
    )

    def read(self, uri: str) -> list[Question]:
        found = layouts.find(uri, self.forms)
        if "table" in found:
            return [
                Question(
                    row.key, row.images, row.text("question") + SHORT_ANSWER, row.answers()[0],
                    row.given("category", "all"), row.given("image_path", row.key), {"answers": row.answers()},
                )
                for row in tables.rows(found["table"])
            ]  # fmt: skip
        [file] = found.values()
        questions = []
        for index, row in enumerate(question_files.table(file, "data")):
            key = str(question_files.whole(file, index, row, "questionId"))
            image = question_files.text(file, index, row, "image")
            text = question_files.text(file, index, row, "question") + SHORT_ANSWER
            if "answers" not in row and "test" in found:
                questions.append(Question(key, (image,), text, "", "all", image, known=False))
                continue
            answers = question_files.texts(file, index, row, "answers")
            gold: dict[str, Any] = {"answers": answers}
            types = row.get("question_types")
            kind = str(types[0]) if isinstance(types, list) and types and isinstance(types[0], str) else "all"
            questions.append(Question(key, (image,), text, answers[0], kind, image, gold))
        return questions

    def images_uri(self, uri: str) -> str:
        found = layouts.find(uri, self.forms)
        return next(iter(found.values())).rpartition("/")[0] or "."

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        own = answer if profile == "llava-1.5" else answer.strip().rstrip(".")
        return anls(own, question.gold["answers"])

    def submission(self, uri: str, questions: Sequence[Question], answers: Mapping[str, str]) -> Submission | None:
        if all(question.known for question in questions):
            return None
        rows = [{"questionId": int(item.id), "answer": answers.get(item.id, "")} for item in questions]
        return submission.json_list("docvqa-test.json", SERVER, rows, "questionId")


def anls(answer: str, golds: Sequence[str]) -> float:
    """Average normalised Levenshtein similarity of one answer (Biten et al. 2019): case and runs of blanks aside."""
    own = " ".join(answer.lower().split())
    best = 1.0
    for gold in golds:
        right = " ".join(gold.lower().split())
        longest = max(len(own), len(right))
        best = min(best, edits(own, right) / longest if longest else 0.0)
    return 1 - best if 1 - best >= THRESHOLD else 0.0


def edits(a: str, b: str) -> int:
    """Levenshtein's distance: insertions, deletions and replacements of a character."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        above, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (x != y))
    return row[-1]
