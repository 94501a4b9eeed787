"""ChartQA (Masry et al. 2022): questions about charts, half by people and half by a machine.

Read from the official release (`test/test_human.json`, `test/test_augmented.json`, images in `test/png`), or from
VLMEvalKit's `ChartQA_TEST.tsv`.
"""

from __future__ import annotations

from llava import storage
from llava.evaluation import layouts, question_files, tables
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question
from llava.evaluation.layouts import Form, Part

SOURCE = "https://github.com/vis-nlp/ChartQA (ChartQA Dataset)"
_KINDS = ("human", "augmented")
TOLERANCE = 0.05


class ChartQA(Benchmark):
    """Relaxed accuracy: numbers may be 5 % off, all else is compared without regard to case; kinds are the halves."""

    name = "chartqa"
    image_folders = ("test/png", "png", "images")
    forms = (
        Form(
            "the official release",
            tuple(Part(kind, SOURCE, (f"test/test_{kind}.json", f"test_{kind}.json")) for kind in _KINDS),
        ),
        Form("VLMEvalKit's table", (Part("table", "VLMEvalKit", ("ChartQA_TEST.tsv",)),)),
    )

    def read(self, uri: str) -> list[Question]:
        found = layouts.find(uri, self.forms)
        if "table" in found:
            return [
                Question(
                    row.key, row.images, row.text("question") + SHORT_ANSWER, row.answers()[0],
                    row.given("split", "all"), row.given("image_path", row.key), {"answers": row.answers()},
                )
                for row in tables.rows(found["table"])
            ]  # fmt: skip
        questions = []
        for kind in _KINDS:
            file = found[kind]
            for index, row in enumerate(question_files.rows(file)):
                image = question_files.text(file, index, row, "imgname")
                text = question_files.text(file, index, row, "query") + SHORT_ANSWER
                answer = question_files.text(file, index, row, "label")
                key, gold = f"{kind}-{index}", {"answers": [answer]}
                questions.append(Question(key, (image,), text, answer, kind, image, gold))
        return questions

    def images_uri(self, uri: str) -> str:
        folder = layouts.folder_of(uri)
        return storage.join(folder, "png") if folder.rstrip("/").endswith("test") else super().images_uri(uri)

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        own = answer.strip() if profile == "llava-1.5" else _bare(answer)
        golds = question.gold["answers"]
        return float(any(relaxed(gold if profile == "llava-1.5" else _bare(gold), own) for gold in golds))


def relaxed(gold: str, answer: str) -> bool:
    """Whether an answer is right within 5 % of a number, or equal but for case (Masry et al. 2022, section 5.1, as
    pix2struct and VLMEvalKit compute it: `6%` is 0.06, and a gold of 0 is compared as text)."""
    own, right = _number(answer), _number(gold)
    if own is not None and right:
        return abs(own - right) / abs(right) <= TOLERANCE
    return answer.lower() == gold.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _bare(text: str) -> str:
    """Without currency, separators of thousands and a final period, which people write and the rule does not know."""
    return text.strip().rstrip(".").replace(",", "").removeprefix("$").strip()
