"""POPE (Li et al. 2023, arXiv:2305.10355): is an object there? Balanced yes/no in three samplings of absent objects.

LLaVA-1.5 asks all three samplings in one file and takes the labels from POPE's own, line by line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llava.errors import DataError, RowError
from llava.evaluation import layouts, question_files, statistics
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question, Scored
from llava.evaluation.layouts import Form, Part
from llava.evaluation.ratios import Ratios
from llava.evaluation.statistics import Interval

SOURCE = "output/coco of https://github.com/AoiDragon/POPE"
_SAMPLING = re.compile(r"random|popular|adversarial")
_LABELS = tuple(
    Part(sampling, SOURCE, tuple(f"{folder}coco_pope_{sampling}.json" for folder in ("coco/", "output/coco/", "")))
    for sampling in ("random", "popular", "adversarial")
)


class Pope(Benchmark):
    """F1 with yes as positive, per sampling and as their mean; also accuracy and the share of yes."""

    name = "pope"
    headline = "f1"
    image_folders = ("val2014", "images")
    forms = (
        Form("LLaVA-1.5's layout", (Part("asked", layouts.EVAL_ZIP, ("llava_pope_test.jsonl",)), *_LABELS)),
        Form("POPE's own files", _LABELS),
    )

    def read(self, uri: str) -> list[Question]:
        if layouts.is_folder(uri):
            found = layouts.find(uri, self.forms)
            asked = found.pop("asked", None)
            labels = list(found.values())
        else:
            files = question_files.files(uri)
            asked = next((file for file in files if file.endswith("llava_pope_test.jsonl")), None)
            labels = [file for file in files if file != asked]
        if asked is None:
            return [question for file in labels for question in self._own(file)]
        return self._joined(asked, labels)

    def _own(self, file: str) -> list[Question]:
        questions = []
        for index, row in question_files.json_lines(file):
            label = _label(file, index, row)
            kind = question_files.given(file, index, row, "category", _sampling(file))
            image = question_files.text(file, index, row, "image")
            key = f"{kind}-{question_files.text(file, index, row, 'question_id')}"
            text = question_files.text(file, index, row, "text") + SHORT_ANSWER
            questions.append(Question(key, (image,), text, label, kind, image))
        return questions

    def _joined(self, asked: str, labels: Sequence[str]) -> list[Question]:
        """Prompts of LLaVA's file with POPE's labels: the n-th question of a sampling has the n-th label."""
        golds = {_sampling(file): list(question_files.json_lines(file)) for file in labels}
        places = {_sampling(file): file for file in labels}
        taken = dict.fromkeys(golds, 0)
        questions = []
        for index, row in question_files.asked(asked):
            kind = str(row.get("category"))
            if kind not in golds or taken[kind] >= len(golds[kind]):
                raise RowError(asked, index, "category", kind, "a sampling with a label left", problem="row-id")
            place, gold = golds[kind][taken[kind]]
            taken[kind] += 1
            image, prompt = row["image"], row["text"]
            if gold.get("image") != image or str(gold.get("text")) != prompt.split("\n", 1)[0]:
                expected = f"{image} and the question of row {index} of {asked}"
                raise RowError(places[kind], place, "image, text", gold, expected, problem="row-id")
            label = _label(places[kind], place, gold)
            questions.append(Question(f"{kind}-{row['question_id']}", (image,), prompt, label, kind, image))
        left = {kind: len(golds[kind]) - count for kind, count in taken.items() if count < len(golds[kind])}
        if left:
            raise DataError(f"{asked}: labels without a question: {left}; expected as many questions as POPE has")
        return questions

    def said_yes(self, answer: str, profile: Profile) -> bool:
        """Whether an answer is a yes; the original takes for yes whatever has no `no` in its first sentence."""
        first = answer.split(".", 1)[0].replace(",", "")
        if profile == "llava-1.5":
            return not any(word in ("No", "no", "not") for word in first.split(" "))
        words = re.findall(r"[a-z']+", answer.lower())
        if words and words[0] in ("yes", "no"):
            return bool(words[0] == "yes")
        return bool(words) and not any(word in ("no", "not", "none") or word.endswith("n't") for word in words)

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        return float(self.said_yes(answer, profile) == (question.expected == "yes"))

    def headline_ratios(self, scored: Sequence[Scored], profile: Profile) -> Ratios:
        kinds = dict.fromkeys(item.question.kind for item in scored) or {"": None}
        parts = [self._f1(scored, profile, kind) for kind in kinds]
        return Ratios.sum(parts, [1 / len(parts)] * len(parts))

    def figures(self, scored: Sequence[Scored], profile: Profile) -> dict[str, Interval]:
        clusters = [item.question.cluster for item in scored]
        kinds = list(dict.fromkeys(item.question.kind for item in scored))
        figures = {"f1": statistics.estimate(self.headline_ratios(scored, profile), clusters)}
        figures["accuracy"] = statistics.mean([item.scores[profile] for item in scored], clusters)
        figures["said_yes"] = statistics.mean([float(self.said_yes(item.answer, profile)) for item in scored], clusters)
        for kind in kinds if len(kinds) > 1 else ():
            own = [item for item in scored if item.question.kind == kind]
            figures[f"f1_{kind}"] = statistics.estimate(
                Ratios.sum([self._f1(own, profile, kind)]), [item.question.cluster for item in own]
            )
        return figures

    def _f1(self, scored: Sequence[Scored], profile: Profile, kind: str) -> tuple[list[float], list[float]]:
        """F1 of one sampling as a ratio of sums: twice the hits by twice the hits and every error."""
        tops, bottoms = [], []
        for item in scored:
            truth, said = item.question.expected == "yes", self.said_yes(item.answer, profile)
            hit, error = truth and said, truth != said
            counts = item.question.kind == kind
            tops.append(2.0 * (hit and counts))
            bottoms.append(float((2 * hit + error) * counts))
        return tops, bottoms


def _sampling(file: str) -> str:
    found = _SAMPLING.search(file.rsplit("/", 1)[-1])
    return found[0] if found else "all"


def _label(file: str, index: int, row: Mapping[str, Any]) -> str:
    label = question_files.text(file, index, row, "label").lower()
    if label not in ("yes", "no"):
        raise RowError(file, index, "label", label, "yes or no", problem="row-field")
    return label
