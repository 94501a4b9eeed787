"""HallusionBench (Guan et al. 2024, arXiv:2310.14566): yes/no questions on images that deceive, and on edited ones.

The 951 questions that have an image are asked, as lmms-eval and VLMEvalKit do. Read from `HallusionBench.json` with its
images in `hallusion_bench`, or from VLMEvalKit's `HallusionBench.tsv`. The paper has GPT-4 compare answers; without it
the words yes and no decide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llava.errors import DataError, RowError
from llava.evaluation import layouts, question_files, statistics, tables
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question, Scored
from llava.evaluation.layouts import Form, Part
from llava.evaluation.ratios import Ratios
from llava.evaluation.statistics import Interval

SOURCE = "https://github.com/tianyi-lab/HallusionBench"
_INDEX = re.compile(r"(?P<set>.+)_(?P<figure>\d+)_(?P<question>\d+)")


class HallusionBench(Benchmark):
    """`accuracy` of questions (aAcc); `accuracy_figure` and `accuracy_question` count a figure, or a question over all
    figures of a set, when all its answers are right (fAcc, qAcc)."""

    name = "hallusionbench"
    image_folders = ("hallusion_bench", "images")
    forms = (
        Form("the official release", (Part("questions", SOURCE, ("HallusionBench.json",)),)),
        Form("VLMEvalKit's table", (Part("table", "VLMEvalKit", ("HallusionBench.tsv",)),)),
    )

    def read(self, uri: str) -> list[Question]:
        found = layouts.find(uri, self.forms)
        questions = self._table(found["table"]) if "table" in found else self._own(found["questions"])
        if not questions:
            raise DataError(f"{uri}: no question with an image in it")
        return questions

    @staticmethod
    def _own(file: str) -> list[Question]:
        questions = []
        for index, row in enumerate(question_files.rows(file)):
            if not row.get("filename"):
                continue  # asked without an image, which is no question about one
            place = [question_files.text(file, index, row, name) for name in ("category", "subcategory", "set_id")]
            figure = question_files.text(file, index, row, "figure_id")
            number = question_files.text(file, index, row, "question_id")
            answer = question_files.text(file, index, row, "gt_answer")
            if answer not in ("0", "1"):
                raise RowError(file, index, "gt_answer", answer, "0 (no) or 1 (yes)", problem="row-field")
            image = question_files.text(file, index, row, "filename").removeprefix("./")
            text = question_files.text(file, index, row, "question")
            questions.append(_question("_".join(place), figure, number, (image,), text, answer == "1", place[0]))
        return questions

    @staticmethod
    def _table(file: str) -> list[Question]:
        questions = []
        for row in tables.rows(file):
            found = _INDEX.fullmatch(row.key)
            if found is None:
                expected = "<category>_<subcategory>_<set>_<figure>_<question>"
                raise RowError(file, row.number, "index", row.key, expected, problem="row-field")
            answer = row.given("answer").lower()
            if answer not in ("yes", "no"):
                raise RowError(file, row.number, "answer", answer, "Yes or No", problem="row-field")
            text, kind = row.text("question"), row.given("category", "all")
            questions.append(
                _question(found["set"], found["figure"], found["question"], row.images, text, answer == "yes", kind)
            )
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        words = re.findall(r"[a-z']+", answer.lower())
        if profile == "robust" and words and words[0] in ("yes", "no"):
            return float(words[0] == question.expected)
        said = [word for word in ("yes", "no") if word in words]
        return float(said == [question.expected])

    def figures(self, scored: Sequence[Scored], profile: Profile) -> dict[str, Interval]:
        figures = super().figures(scored, profile)
        clusters = [item.question.cluster for item in scored]
        for name in ("figure", "question"):
            figures[f"accuracy_{name}"] = statistics.estimate(_whole(scored, profile, name), clusters)
        return figures


def _question(of: str, figure: str, number: str, images: tuple[str, ...], text: str, yes: bool, kind: str) -> Question:
    gold = {"figure": f"{of}_{figure}", "question": f"{of}_{number}"}
    expected = "yes" if yes else "no"
    return Question(f"{of}_{figure}_{number}", images, text + SHORT_ANSWER, expected, kind, of, gold)


def _whole(scored: Sequence[Scored], profile: Profile, name: str) -> Ratios:
    """Share of the figures (or questions) all of whose answers are right."""
    groups: dict[str, list[float]] = {}
    for item in scored:
        groups.setdefault(item.question.gold[name], []).append(item.scores[profile])
    mine = [groups[item.question.gold[name]] for item in scored]
    return Ratios.ratio([all(group) / len(group) for group in mine], [1 / len(group) for group in mine])
