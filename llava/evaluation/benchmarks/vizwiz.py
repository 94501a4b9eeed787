"""VizWiz-VQA (Gurari et al. 2018): questions by blind people, some of which the image does not answer.

`questions_uri`: the official `val.json` (`image`, `question`, `answers`, `answer_type`).
"""

from __future__ import annotations

from llava import storage
from llava.errors import DataError
from llava.evaluation import question_files, vqa_score
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question
from llava.evaluation.normalise import lenient

UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."


class VizWiz(Benchmark):
    """VQA accuracy, by type of answer."""

    name = "vizwiz"

    def read(self, uri: str) -> list[Question]:
        questions = []
        for file in question_files.files(uri):
            data = storage.read_json(file)
            if not isinstance(data, list) or not data:
                raise DataError(f"{file}: expected a non-empty list of questions, as VizWiz ships it")
            for index, row in enumerate(data):
                image = question_files.text(file, index, row, "image")
                text = question_files.text(file, index, row, "question") + UNANSWERABLE + SHORT_ANSWER
                answers = question_files.texts(file, index, row, "answers")
                best = max(dict.fromkeys(answers), key=answers.count)
                kind = str(row.get("answer_type") or "all")
                questions.append(Question(image, (image,), text, best, kind, image, {"answers": answers}))
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        if profile == "llava-1.5":
            own = vqa_score.normalise_tokens(answer)
            return vqa_score.accuracy(own, question.gold["answers"], plain_if_unanimous=True)
        return vqa_score.accuracy(answer, question.gold["answers"], lenient)
