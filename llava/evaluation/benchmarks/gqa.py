"""GQA (Hudson and Manning 2019): compositional questions, one answer each; LLaVA-1.5's figure is testdev balanced."""

from __future__ import annotations

from llava.evaluation import layouts, question_files
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question
from llava.evaluation.layouts import Form, Part
from llava.evaluation.normalise import exact, lenient

SOURCE = "questions1.2.zip, https://cs.stanford.edu/people/dorarad/gqa/download.html"
_ANSWERS = Part(
    "questions",
    SOURCE,
    tuple(
        f"{folder}testdev_balanced_questions.json" for folder in ("data/", "data/questions/", "data/questions1.2/", "")
    ),
)


class GQA(Benchmark):
    """Exact match after lower case and final periods; kinds are GQA's structural types."""

    name = "gqa"
    image_folders = ("data/images", "images")
    forms = (
        Form(
            "LLaVA-1.5's layout",
            (Part("asked", layouts.EVAL_ZIP, ("llava_gqa_testdev_balanced.jsonl",)), _ANSWERS),
        ),
        Form("the official release", (_ANSWERS,)),
    )

    def read(self, uri: str) -> list[Question]:
        found = layouts.find(uri, self.forms)
        file = found["questions"]
        golds = question_files.by_id(file)
        if "asked" in found:
            asked = [
                (str(row["question_id"]), row["image"], row["text"], index)
                for index, row in question_files.asked(found["asked"])
            ]
        else:
            asked = [
                (
                    key,
                    question_files.text(file, index, row, "imageId") + ".jpg",
                    question_files.text(file, index, row, "question") + SHORT_ANSWER,
                    index,
                )
                for index, (key, row) in enumerate(golds.items())
            ]
        questions = []
        for key, image, text, index in asked:
            row = question_files.gold_of(golds, key, found.get("asked", file), index, file)
            types = row.get("types")
            kind = question_files.given(file, index, types, "structural", "all") if isinstance(types, dict) else "all"
            answer = question_files.text(file, index, row, "answer")
            questions.append(Question(key, (image,), text, answer, kind, image))
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        if profile == "llava-1.5":
            return float(exact(answer) == question.expected)
        return float(lenient(answer) == lenient(question.expected))
