"""LLaVA-Bench in the wild (Liu et al. 2023): a judge scores the model's answer beside GPT-4's, from 1 to 10 each.

The judge sees people's description of the image, not the image.
"""

from __future__ import annotations

from collections.abc import Sequence

from llava.errors import RowError
from llava.evaluation import judge_prompts, layouts, question_files, statistics
from llava.evaluation.benchmark import Question
from llava.evaluation.judged import Judged, Verdict
from llava.evaluation.layouts import Form, Part
from llava.evaluation.ratios import Ratios
from llava.evaluation.statistics import Interval

SOURCE = "https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild"


class LLaVABench(Judged):
    """`relative`: the sum of the model's scores by that of the reference's (papers: in percent), and by kind."""

    name = "llava-bench"
    headline = "relative"
    max_new_tokens = 1024
    judge_system = judge_prompts.LLAVA_BENCH_SYSTEM
    judge_temperature = 0.2
    highest = 10.0
    published_judge = "gpt-4-0314"
    forms = (
        Form(
            "LLaVA-Bench in the wild",
            (
                Part("questions", SOURCE, ("questions.jsonl",)),
                Part("context", SOURCE, ("context.jsonl",)),
                Part("reference", SOURCE, ("answers_gpt4.jsonl",)),
            ),
        ),
    )

    def read(self, uri: str) -> list[Question]:
        found = layouts.find(uri, self.forms)
        context = {}
        for index, row in question_files.json_lines(found["context"]):
            caption = row.get("caption")
            text = "\n".join(map(str, caption)) if isinstance(caption, list) else caption
            if not isinstance(text, str):
                raise RowError(
                    found["context"], index, "caption", caption, "a text or a list of texts", problem="row-field"
                )
            context[question_files.text(found["context"], index, row, "image")] = text
        reference = {
            question_files.text(found["reference"], index, row, "question_id"): question_files.text(
                found["reference"], index, row, "text"
            )
            for index, row in question_files.json_lines(found["reference"])
        }
        file = found["questions"]
        questions = []
        for index, row in question_files.asked(file):
            key, image = row["question_id"], row["image"]
            gold = {
                "reference": question_files.gold_of(reference, key, file, index, found["reference"]),
                "context": question_files.gold_of(context, image, file, index, found["context"]),
            }
            kind = question_files.text(file, index, row, "category")
            questions.append(Question(key, (image,), row["text"], gold["reference"], kind, image, gold, known=False))
        return questions

    def judge_prompt(self, question: Question, answer: str) -> str:
        return (
            f"[Context]\n{question.gold['context']}\n\n"
            f"[Question]\n{question.text}\n\n"
            f"[Assistant 1]\n{question.gold['reference']}\n\n[End of Assistant 1]\n\n"
            f"[Assistant 2]\n{answer}\n\n[End of Assistant 2]\n\n"
            f"[System]\n{judge_prompts.LLAVA_BENCH}\n\n"
        )

    def verdict(self, question: Question, reply: str) -> Verdict | None:
        parts = reply.split("\n")[0].replace(",", " ").split()
        try:
            reference, own = (float(part) for part in parts)
        except ValueError:
            return None
        return Verdict(question, own, reference) if 1 <= reference <= 10 and 1 <= own <= 10 else None

    def judged_figures(self, verdicts: Sequence[Verdict]) -> dict[str, Interval]:
        figures = {self.headline: _relative(verdicts)}
        for kind in dict.fromkeys(item.question.kind for item in verdicts):
            figures[f"relative_{kind}"] = _relative([item for item in verdicts if item.question.kind == kind])
        return figures


def _relative(verdicts: Sequence[Verdict]) -> Interval:
    ratios = Ratios.ratio([item.score for item in verdicts], [item.reference for item in verdicts])
    return statistics.estimate(ratios, [item.question.cluster for item in verdicts])
