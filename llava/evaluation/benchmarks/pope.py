"""POPE (Li et al. 2023, arXiv:2305.10355): is an object there? Balanced yes/no in three samplings of absent objects.

`questions_uri`: `coco_pope_random.json`, `coco_pope_popular.json`, `coco_pope_adversarial.json` (JSON lines).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llava.errors import RowError
from llava.evaluation import question_files, statistics
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question, Scored
from llava.evaluation.ratios import Ratios
from llava.evaluation.statistics import Interval

_SAMPLING = re.compile(r"random|popular|adversarial")


class Pope(Benchmark):
    """F1 with yes as positive, per sampling and as their mean; also accuracy and the share of yes."""

    name = "pope"
    headline = "f1"

    def read(self, uri: str) -> list[Question]:
        questions = []
        for file in question_files.files(uri):
            found = _SAMPLING.search(file.rsplit("/", 1)[-1])
            for index, row in question_files.json_lines(file):
                label = question_files.text(file, index, row, "label").lower()
                if label not in ("yes", "no"):
                    raise RowError(file, index, "label", label, "yes or no", problem="row-field")
                kind = str(row.get("category") or (found[0] if found else "all"))
                image = question_files.text(file, index, row, "image")
                key = f"{kind}-{question_files.text(file, index, row, 'question_id')}"
                text = question_files.text(file, index, row, "text") + SHORT_ANSWER
                questions.append(Question(key, (image,), text, label, kind, image))
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
