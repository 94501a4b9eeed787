"""AI2D (Kembhavi et al. 2016): multiple choice on school-book diagrams, the 3,088 test questions.

Read from VLMEvalKit's tables: `AI2D_TEST.tsv` (labels of the diagram replaced by letters) or `AI2D_TEST_NO_MASK.tsv`.
Drawing those letters oneself from the official annotations gives other images, hence other figures.
"""

from __future__ import annotations

from llava.errors import RowError
from llava.evaluation import choices, layouts, tables
from llava.evaluation.benchmark import Benchmark, Profile, Question
from llava.evaluation.layouts import Form, Part

SOURCE = "VLMEvalKit, https://github.com/open-compass/VLMEvalKit"


class AI2D(Benchmark):
    """Accuracy; `llava-1.5` reads as VLMEvalKit does without a judge."""

    name = "ai2d"
    max_new_tokens = 1024
    forms = tuple(Form(file, (Part("table", SOURCE, (file,)),)) for file in ("AI2D_TEST.tsv", "AI2D_TEST_NO_MASK.tsv"))

    def read(self, uri: str) -> list[Question]:
        questions = []
        for row in tables.rows(layouts.find(uri, self.forms)["table"]):
            if len(row.options) < 2:
                expected = "at least two options"
                raise RowError(row.file, row.number, "A, B, C, D", dict(row.options), expected, problem="row-field")
            letter = row.letter()
            text = choices.ask(row.text("question"), row.options)
            gold = {"letter": letter, "options": row.options}
            cluster = row.given("image_path", row.key)
            kind = row.given("category", "all")
            questions.append(Question(row.key, row.images, text, letter, kind, cluster, gold, known=bool(letter)))
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        read = choices.inferred if profile == "llava-1.5" else choices.understood
        return float(read(answer, question.gold["options"]) == question.gold["letter"])
