"""MME (Fu et al. 2023, arXiv:2306.13394): two yes/no questions an image, in fourteen subtasks.

`questions_uri`: JSON lines with `question_id`, `image` (`<subtask>/<file>`), `question`, `answer` (Yes or No) and
`category`.
"""

from __future__ import annotations

from collections.abc import Sequence

from llava.errors import RowError
from llava.evaluation import question_files, statistics
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question, Scored
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

    def figures(self, scored: Sequence[Scored], profile: Profile) -> dict[str, Interval]:
        clusters = [item.question.cluster for item in scored]

        def total(chosen: Sequence[int], cognition: bool) -> float:
            by_kind: dict[str, dict[str, list[list[float]]]] = {}
            copies: dict[str, int] = {}
            for k in chosen:
                item = scored[k]
                if (item.question.kind.lower() in COGNITION) is not cognition:
                    continue
                # An image drawn twice is two images: its questions come together, one draw after the other.
                seen = copies.get(item.question.id, 0)
                copies[item.question.id] = seen + 1
                groups = by_kind.setdefault(item.question.kind, {}).setdefault(item.question.cluster, [])
                while len(groups) <= seen:
                    groups.append([])
                groups[seen].append(item.scores[profile])
            value = 0.0
            for clusters_of_kind in by_kind.values():
                pairs = [group for groups in clusters_of_kind.values() for group in groups]
                answers = [score for pair in pairs for score in pair]
                value += 100 * (sum(answers) / len(answers) + sum(all(pair) for pair in pairs) / len(pairs))
            return value

        figures = {
            name: statistics.bootstrap_statistic(lambda chosen, part=part: total(list(chosen), part), clusters)  # type: ignore[misc]
            for name, part in (("perception", False), ("cognition", True))
        }
        figures["accuracy"] = statistics.mean([item.scores[profile] for item in scored], clusters)
        return figures
