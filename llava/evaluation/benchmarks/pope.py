"""POPE (Li et al. 2023, arXiv:2305.10355): is an object there? Balanced yes/no in three samplings of absent objects.

`questions_uri`: `coco_pope_random.json`, `coco_pope_popular.json`, `coco_pope_adversarial.json` (JSON lines).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from llava.errors import RowError
from llava.evaluation import question_files, statistics
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question, Scored
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

    def figures(self, scored: Sequence[Scored], profile: Profile) -> dict[str, Interval]:
        clusters = [item.question.cluster for item in scored]
        truth = np.asarray([item.question.expected == "yes" for item in scored])
        said = np.asarray([self.said_yes(item.answer, profile) for item in scored])
        kinds = list(dict.fromkeys(item.question.kind for item in scored))
        of_kind = np.asarray([kinds.index(item.question.kind) for item in scored])

        def mean_f1(chosen: npt.NDArray[np.int64]) -> float:
            parts = [chosen[of_kind[chosen] == k] for k in range(len(kinds))]
            return float(np.mean([_f1(truth[part], said[part]) for part in parts if len(part)]))

        figures = {"f1": statistics.bootstrap_statistic(mean_f1, clusters)}
        figures["accuracy"] = statistics.mean([item.scores[profile] for item in scored], clusters)
        figures["said_yes"] = statistics.mean([float(yes) for yes in said], clusters)
        for kind in kinds if len(kinds) > 1 else ():
            chosen = np.flatnonzero(of_kind == kinds.index(kind))
            value = _f1(truth[chosen], said[chosen])
            interval = statistics.bootstrap_statistic(
                lambda picked, chosen=chosen: _f1(truth[chosen[picked]], said[chosen[picked]]),  # type: ignore[misc]
                [clusters[k] for k in chosen],
            )
            figures[f"f1_{kind}"] = Interval(value, interval.low, interval.high, len(chosen))
        return figures


def _f1(truth: npt.NDArray[np.bool_], said: npt.NDArray[np.bool_]) -> float:
    hits = int((truth & said).sum())
    wrong = int((truth != said).sum())
    return 2 * hits / (2 * hits + wrong) if hits or wrong else 0.0
