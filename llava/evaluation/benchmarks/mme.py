"""MME (Fu et al. 2023, arXiv:2306.13394): two yes/no questions an image, in fourteen subtasks.

`questions_uri`: JSON lines with `question_id`, `image` (`<subtask>/<file>`), `question`, `answer` (Yes or No) and
`category`.
"""

from __future__ import annotations

from collections.abc import Sequence

from llava.errors import RowError
from llava.evaluation import question_files, statistics
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question, Scored
from llava.evaluation.ratios import Ratios
from llava.evaluation.statistics import Interval

COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
_LONG_SUFFIX = " Please answer yes or no."


class MME(Benchmark):
    """Per subtask 100 x (accuracy + accuracy+), accuracy+ wanting both questions of an image right; summed."""

    name = "mme"
    headline = "perception"

    def read(self, uri: str) -> list[Question]:
        questions = []
        for file in question_files.files(uri):
            for index, row in question_files.json_lines(file):
                label = question_files.text(file, index, row, "answer").lower()
                if label not in ("yes", "no"):
                    raise RowError(file, index, "answer", label, "Yes or No", problem="row-field")
                image = question_files.text(file, index, row, "image")
                kind = str(row.get("category") or image.split("/", 1)[0])
                text = question_files.text(file, index, row, "question").removesuffix(_LONG_SUFFIX) + SHORT_ANSWER
                key = f"{question_files.text(file, index, row, 'question_id')}#{index}"
                questions.append(Question(key, (image,), text, label, kind, f"{kind}/{image}"))
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        text = answer.strip().lower()
        # The original looks at four characters: "yes", "no, ...", "No." and also "nope" and "not sure".
        first = text[:4] if profile == "llava-1.5" else text.split(".", 1)[0]
        if profile == "llava-1.5":
            said = "yes" if "yes" in first else "no" if "no" in first else "other"
        else:
            words = first.replace(",", " ").split()
            said = words[0] if words and words[0] in ("yes", "no") else "other"
        return float(said == question.expected)

    def headline_ratios(self, scored: Sequence[Scored], profile: Profile) -> Ratios:
        return _total(scored, profile, cognition=False)

    def figures(self, scored: Sequence[Scored], profile: Profile) -> dict[str, Interval]:
        clusters = [item.question.cluster for item in scored]
        return {
            "perception": statistics.estimate(self.headline_ratios(scored, profile), clusters),
            "cognition": statistics.estimate(_total(scored, profile, cognition=True), clusters),
            "accuracy": statistics.mean([item.scores[profile] for item in scored], clusters),
        }


def _total(scored: Sequence[Scored], profile: Profile, *, cognition: bool) -> Ratios:
    """Accuracy and accuracy+ of each subtask as ratios; an image's two questions share one unit of accuracy+."""
    images: dict[str, list[float]] = {}
    for item in scored:
        images.setdefault(item.question.cluster, []).append(item.scores[profile])
    kinds = dict.fromkeys(item.question.kind for item in scored)
    pairs: list[tuple[list[float], list[float]]] = []
    for kind in kinds:
        if (kind.lower() in COGNITION) is not cognition:
            continue
        own = [float(item.question.kind == kind) for item in scored]
        share = [mine / len(images[item.question.cluster]) for mine, item in zip(own, scored, strict=True)]
        pairs.append(([mine * item.scores[profile] for mine, item in zip(own, scored, strict=True)], own))
        both = [part * all(images[item.question.cluster]) for part, item in zip(share, scored, strict=True)]
        pairs.append((both, share))
    return Ratios.sum(pairs or [([0.0] * len(scored), [0.0] * len(scored))], [100.0] * max(1, len(pairs)))
