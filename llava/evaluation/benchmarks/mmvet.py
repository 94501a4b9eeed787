"""MM-Vet (Yu et al. 2023, arXiv:2308.02490): open questions over six capabilities, scored by a judge from 0 to 1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llava.errors import RowError
from llava.evaluation import judge_prompts, layouts, question_files, statistics
from llava.evaluation.benchmark import Question
from llava.evaluation.judged import Judged, Verdict
from llava.evaluation.layouts import Form, Part
from llava.evaluation.ratios import Ratios
from llava.evaluation.statistics import Interval

SOURCE = "mm-vet.zip, https://github.com/yuweihao/MM-Vet/releases"
_ANSWERS = Part("answers", SOURCE, ("mm-vet.json", "mm-vet/mm-vet.json"))
_SCORE = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")


class MMVet(Judged):
    """`score`: mean of the judge's scores (papers print its hundredfold), and the same for each capability."""

    name = "mm-vet"
    headline = "score"
    max_new_tokens = 1024
    judge_max_tokens = 16
    published_judge = "gpt-4-0613"
    image_folders = ("images", "mm-vet/images")
    forms = (
        Form("LLaVA-1.5's layout", (Part("asked", layouts.EVAL_ZIP, ("llava-mm-vet.jsonl",)), _ANSWERS)),
        Form("the official release", (_ANSWERS,)),
    )

    def read(self, uri: str) -> list[Question]:
        found = layouts.find(uri, self.forms)
        file = found["answers"]
        asked = None
        if "asked" in found:
            asked = {f"v1_{row['question_id']}": row for _, row in question_files.asked(found["asked"])}
        questions = []
        for index, (key, row) in enumerate(question_files.by_id(file).items()):
            text = question_files.text(file, index, row, "question")
            image = question_files.text(file, index, row, "imagename")
            gold: dict[str, Any] = {"answer": question_files.text(file, index, row, "answer"), "question": text}
            if asked is not None:
                line = question_files.gold_of(asked, key, file, index, found["asked"])
                text, image = line["text"], line["image"]
            skills = row.get("capability")
            if not isinstance(skills, list) or not skills or not all(isinstance(skill, str) for skill in skills):
                raise RowError(file, index, "capability", skills, "a list of capabilities", problem="row-field")
            gold["capability"] = sorted(str(skill) for skill in skills)
            kind = ",".join(gold["capability"])
            questions.append(Question(key, (image,), text, gold["answer"], kind, image, gold, known=False))
        return questions

    def judge_prompt(self, question: Question, answer: str) -> str:
        truth = question.gold["answer"].replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        return judge_prompts.MM_VET + "\n" + " | ".join([question.gold["question"], truth, answer, ""])

    def verdict(self, question: Question, reply: str) -> Verdict | None:
        first = reply.strip().split(" ")[0].strip()
        score = float(first) if _SCORE.fullmatch(first) else -1.0
        return Verdict(question, score) if 0 <= score <= 1 else None

    def judged_figures(self, verdicts: Sequence[Verdict]) -> dict[str, Interval]:
        figures = {self.headline: _mean(verdicts)}
        for skill in dict.fromkeys(skill for item in verdicts for skill in item.question.gold["capability"]):
            figures[f"score_{skill}"] = _mean([item for item in verdicts if skill in item.question.gold["capability"]])
        return figures


def _mean(verdicts: Sequence[Verdict]) -> Interval:
    clusters = [item.question.cluster for item in verdicts]
    return statistics.estimate(Ratios.mean([item.score for item in verdicts]), clusters)
