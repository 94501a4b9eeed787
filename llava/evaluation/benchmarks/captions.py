"""Captioning of COCO's kind, scored by CIDEr-D.

`questions_uri`: a `captions_*.json`; every image is described once and compared with all its captions.
"""

from __future__ import annotations

from collections.abc import Sequence

from llava.evaluation import question_files, statistics
from llava.evaluation.benchmark import Benchmark, Profile, Question, Scored
from llava.evaluation.cider import cider
from llava.evaluation.ptb import plain_words, tokenizer_name
from llava.evaluation.ratios import Ratios
from llava.evaluation.statistics import Interval

ASK = "Provide a one-sentence caption for the provided image."


class Captions(Benchmark):
    """`cider` of the corpus, from 0 to 10; papers print its hundredfold.

    The score of a single answer, which bars and gallery use, is the share of its words that any reference has.
    """

    name = "captions"
    headline = "cider"
    max_new_tokens = 64

    def read(self, uri: str) -> list[Question]:
        [file] = question_files.files(uri)
        references: dict[str, list[str]] = {}
        for index, row in enumerate(question_files.table(file, "annotations")):
            key = question_files.text(file, index, row, "image_id")
            references.setdefault(key, []).append(question_files.text(file, index, row, "caption"))
        questions = []
        for index, row in enumerate(question_files.table(file, "images")):
            key, image = question_files.text(file, index, row, "id"), question_files.text(file, index, row, "file_name")
            if key in references:
                gold = {"captions": references[key]}
                questions.append(Question(key, (image,), ASK, references[key][0], "all", image, gold))
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        said = set(plain_words(answer))
        known = {word for caption in question.gold["captions"] for word in plain_words(caption)}
        return len(said & known) / len(said) if said else 0.0

    def notes(self) -> list[str]:
        return [f"CIDEr-D over the words of: {tokenizer_name()}."]

    def headline_ratios(self, scored: Sequence[Scored], profile: Profile) -> Ratios:
        return Ratios.mean(cider(_said(scored, profile), [item.question.gold["captions"] for item in scored]))

    def figures(self, scored: Sequence[Scored], profile: Profile) -> dict[str, Interval]:
        clusters = [item.question.cluster for item in scored]
        lengths = [float(len(plain_words(answer))) for answer in _said(scored, profile)]
        return {
            "cider": statistics.estimate(self.headline_ratios(scored, profile), clusters),
            "words": statistics.bootstrap(lengths, clusters),
        }


def _said(scored: Sequence[Scored], profile: Profile) -> list[str]:
    return [item.answer if profile == "llava-1.5" else item.answer.split("\n", 1)[0] for item in scored]
