"""VizWiz-VQA (Gurari et al. 2018): questions by blind people, some of which the image does not answer.

LLaVA-1.5's figure is that of the test split, which only the challenge's server can score: the stage writes the file for
it. The validation split is scored here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llava.evaluation import layouts, question_files, submission, vqa_score
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question
from llava.evaluation.layouts import Form, Part
from llava.evaluation.normalise import lenient
from llava.evaluation.submission import Submission

SOURCE = "Annotations.zip, https://vizwiz.org/tasks-and-datasets/vqa/"
SERVER = "EvalAI, challenge 2185 (VizWiz VQA), phase test-standard"
UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."


class VizWiz(Benchmark):
    """VQA accuracy, by type of answer."""

    name = "vizwiz"
    forms = (
        Form("LLaVA-1.5's question file for the test split", (Part("asked", layouts.EVAL_ZIP, ("llava_test.jsonl",)),)),
        Form("the official test split", (Part("open", SOURCE, ("test.json", "Annotations/test.json")),)),
        Form("the official validation split", (Part("val", SOURCE, ("val.json", "Annotations/val.json")),)),
    )

    def read(self, uri: str) -> list[Question]:
        found = layouts.find(uri, self.forms)
        if "asked" in found:
            return [
                Question(row["image"], (row["image"],), row["text"], "", "all", row["image"], known=False)
                for _, row in question_files.asked(found["asked"])
            ]
        [file] = found.values()
        questions = []
        for index, row in enumerate(question_files.rows(file)):
            image = question_files.text(file, index, row, "image")
            text = question_files.text(file, index, row, "question") + UNANSWERABLE + SHORT_ANSWER
            if "answers" not in row and "val" not in found:
                questions.append(Question(image, (image,), text, "", "all", image, known=False))
                continue
            answers = question_files.ten(file, index, row)
            best = max(dict.fromkeys(answers), key=answers.count)
            kind = question_files.given(file, index, row, "answer_type", "all")
            questions.append(Question(image, (image,), text, best, kind, image, {"answers": answers}))
        return questions

    def images_uri(self, uri: str) -> str:
        split = "val" if "val" in layouts.find(uri, self.forms) else "test"
        return layouts.beside(uri, split, f"../{split}", "images") or layouts.folder_of(uri)

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        if profile == "llava-1.5":
            own = vqa_score.normalise_tokens(answer)
            return vqa_score.accuracy(own, question.gold["answers"], plain_if_unanimous=True)
        return vqa_score.accuracy(answer, question.gold["answers"], lenient)

    def submission(self, uri: str, questions: Sequence[Question], answers: Mapping[str, str]) -> Submission | None:
        if all(question.known for question in questions):
            return None
        rows = [
            {
                "image": question.images[0],
                "answer": vqa_score.normalise_tokens(answers[question.id]) if question.id in answers else "",
            }
            for question in questions
        ]
        return submission.json_list("vizwiz-test.json", SERVER, rows, "image")
