"""OCRBench (Liu et al. 2024, arXiv:2305.07895): a thousand questions on text in images, ten kinds.

Read from `OCRBench.json` with its images in `OCRBench_Images`, or from VLMEvalKit's `OCRBench.tsv`.
"""

from __future__ import annotations

from llava.evaluation import layouts, question_files, tables
from llava.evaluation.benchmark import Benchmark, Profile, Question
from llava.evaluation.layouts import Form, Part
from llava.evaluation.normalise import lenient

SOURCE = "https://github.com/Yuliang-Liu/MultimodalOCR"
FORMULAS = ("HME100k", "Handwritten Mathematical Expression Recognition")


class OCRBench(Benchmark):
    """Accuracy, of which papers print the thousandfold: an answer is right when it holds an accepted text.

    Blanks do not count in formulas. `robust` wants the text as whole words, so that `no` is not in `north`.
    """

    name = "ocrbench"
    image_folders = ("OCRBench_Images", "images")
    forms = (
        Form("the official release", (Part("questions", SOURCE, ("OCRBench.json", "OCRBench/OCRBench.json")),)),
        Form("VLMEvalKit's table", (Part("table", "VLMEvalKit", ("OCRBench.tsv",)),)),
    )

    def read(self, uri: str) -> list[Question]:
        found = layouts.find(uri, self.forms)
        if "table" in found:
            return [
                _question(row.key, row.images, row.text("question"), row.answers(), row.given("category", "all"))
                for row in tables.rows(found["table"])
            ]
        file = found["questions"]
        questions = []
        for index, row in enumerate(question_files.rows(file)):
            image = question_files.text(file, index, row, "image_path")
            listed = isinstance(row.get("answers"), list)
            answers = question_files.texts(file, index, row, "answers") if listed else []
            answers = answers or [question_files.text(file, index, row, "answers")]
            kind = question_files.given(file, index, row, "type", "all")
            name = question_files.given(file, index, row, "dataset_name")
            text = question_files.text(file, index, row, "question")
            questions.append(
                _question(str(index), (image,), text, answers, FORMULAS[1] if name == FORMULAS[0] else kind)
            )
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        formula = bool(question.gold["formula"])
        if profile == "robust" and not formula:
            said = f" {lenient(answer)} "
            return float(any(f" {lenient(gold)} " in said for gold in question.gold["answers"]))
        return float(any(_form(gold, formula) in _form(answer, formula) for gold in question.gold["answers"]))


def _question(key: str, images: tuple[str, ...], text: str, answers: list[str], kind: str) -> Question:
    gold = {"answers": answers, "formula": kind in FORMULAS}
    return Question(key, images, text.strip(), answers[0], kind, key, gold)


def _form(text: str, formula: bool) -> str:
    """As the official script compares: formulas without blanks and with their case, all else in lower case."""
    plain = text.strip().replace("\n", " ")
    return plain.replace(" ", "") if formula else plain.lower()
