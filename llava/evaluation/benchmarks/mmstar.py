"""MMStar (Chen et al. 2024, arXiv:2403.20330): 1,500 questions that need their image, over eighteen abilities.

Read from `MMStar.tsv`, whose questions hold their options already.
"""

from __future__ import annotations

from llava.evaluation import choices, layouts, tables
from llava.evaluation.benchmark import OPTION_LETTER, Benchmark, Profile, Question
from llava.evaluation.layouts import Form, Part

SOURCE = "https://huggingface.co/datasets/Lin-Chen/MMStar, or VLMEvalKit"
_OPENINGS = ("", "(", "option ", "the answer is ")


class MMStar(Benchmark):
    """Accuracy; kinds are the six abilities. `llava-1.5` reads as MMStar's own script does."""

    name = "mmstar"
    max_new_tokens = 1024
    forms = (Form("MMStar's table", (Part("table", SOURCE, ("MMStar.tsv", "mmstar.tsv")),)),)

    def read(self, uri: str) -> list[Question]:
        questions = []
        for row in tables.rows(layouts.find(uri, self.forms)["table"]):
            letter = row.letter()
            asked = row.text("question").strip()
            inside = all(f"{letter}:" in asked or f"{letter}." in asked for letter in row.options)
            text = asked + OPTION_LETTER if inside else choices.ask(asked, row.options)
            gold = {"letter": letter, "options": row.options}
            kind = row.given("category", "all")
            questions.append(Question(row.key, row.images, text, letter, kind, row.key, gold, known=bool(letter)))
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        letter = question.gold["letter"]
        if profile == "robust":
            return float(choices.understood(answer, question.gold["options"]) == letter)
        text = answer.lower().strip().replace("\n", " ")
        return float(any(text.startswith(f"{opening}{letter.lower()}") for opening in _OPENINGS))
