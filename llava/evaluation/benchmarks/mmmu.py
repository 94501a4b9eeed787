"""MMMU (Yue et al. 2024, arXiv:2311.16502): college questions over thirty subjects; LLaVA's figures are validation.

Read from VLMEvalKit's `MMMU_DEV_VAL.tsv`; of its rows the split `validation` is asked. Images come first, as LLaVA-1.5
was trained; `<image 1>` in a question says which one is meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from llava.errors import DataError
from llava.evaluation import choices, layouts, tables
from llava.evaluation.benchmark import OPTION_LETTER, SHORT_ANSWER, Benchmark, Profile, Question
from llava.evaluation.layouts import Form, Part
from llava.evaluation.normalise import lenient

SOURCE = "VLMEvalKit, https://github.com/open-compass/VLMEvalKit"
SPLIT = "validation"
_KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_THOUSANDS = r"-?\b\d{1,3}(?:,\d{3})+\b"
_SCIENTIFIC = r"-?\d+(?:\.\d+)?[eE][+-]?\d+"
_SIMPLE = r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"
Value = str | float


class MMMU(Benchmark):
    """Accuracy over all questions; kinds are the subjects.

    `llava-1.5` reads as MMMU's own evaluator does, but an answer that names no option is wrong, where that one draws
    an option at random.
    """

    name = "mmmu"
    max_new_tokens = 1024
    forms = (Form("VLMEvalKit's table", (Part("table", SOURCE, ("MMMU_DEV_VAL.tsv",)),)),)

    def read(self, uri: str) -> list[Question]:
        file = layouts.find(uri, self.forms)["table"]
        questions = []
        for row in tables.rows(file):
            if row.given("split", SPLIT) != SPLIT:
                continue
            asked = row.text("question")
            kind = row.given("category", "all")
            if row.options:
                answer = row.letter()
                lines = "\n".join(f"{letter}. {option}" for letter, option in row.options.items())
                text, golds = f"{asked}\n{lines}\n{OPTION_LETTER}", [answer]
            else:
                golds = row.answers()
                text, answer = f"{asked}\n{SHORT_ANSWER}", golds[0]
            gold = {"answers": golds, "options": row.options}
            questions.append(Question(row.key, row.images, text, answer, kind, row.key, gold, known=bool(answer)))
        if not questions:
            raise DataError(f"{file}: no question of the split {SPLIT!r} in it")
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        options, golds = question.gold["options"], question.gold["answers"]
        if options:
            read = chosen if profile == "llava-1.5" else choices.understood
            return float(read(answer, options) in golds)
        if profile == "robust":
            return float(lenient(answer) in {lenient(gold) for gold in golds})
        right = [value for gold in golds for value in normal(gold)]
        return float(any(_same(said, right) for said in said_values(answer)))


def chosen(answer: str, options: Mapping[str, str]) -> str | None:
    """The option an answer names, by MMMU's rule: `(A)`, else `A `, else `A.`, else in more than five words the text
    of an option; of several the last one named."""
    for mark in ",.!?;:'":
        answer = answer.strip(mark)
    text = f" {answer} "
    for shape, where in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        found = [letter for letter in options if shape.format(letter) in text]
        if found:
            return max(found, key=lambda letter: text.rfind(where.format(letter)))  # the first of equals, as there
    if len(text.split()) > 5:
        low = text.lower()
        found = [letter for letter, option in options.items() if option.lower() in low]
        if found:
            return max(found, key=lambda letter: low.rfind(options[letter].lower()))
    return None


def said_values(answer: str) -> set[Value]:
    """Texts and numbers that an open answer may mean: the ends of its sentences behind `is`, `answer`, `=` and the
    like, and every number in them."""
    text = answer.strip().strip(".").lower()
    parts = re.split(r"\.\s(?=[A-Z])|\n", text)
    keys = list(_KEYS)
    ends = []
    for index, part in enumerate(parts):
        if index == len(parts) - 1:
            keys.append("=")
        tails = [part.rsplit(key, 1)[-1].strip() for key in keys if key in part]
        # The first of the shortest; an empty one is replaced by the next, as in the evaluator.
        shortest = ""
        for tail in tails:
            shortest = tail if not shortest or len(tail) < len(shortest) else shortest
        if shortest and shortest not in tuple(":,.!?;'"):
            ends.append(shortest)
    said = ends or [text]
    numbers = [
        number for end in said for shape in (_THOUSANDS, _SCIENTIFIC, _SIMPLE) for number in re.findall(shape, end)
    ]
    return {value for item in [*said, *numbers] for value in normal(item)}


def normal(text: str) -> list[Value]:
    """A number to two decimals, or a text in lower case; a single character with a blank before or behind it."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        low = text.lower()
        return [f" {low}", f"{low} "] if len(low) == 1 else [low]


def _same(said: Value, right: list[Value]) -> bool:
    if isinstance(said, str):
        return any(isinstance(value, str) and value in said for value in right)
    return said in right
