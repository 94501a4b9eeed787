"""MMBench (Liu et al. 2023, arXiv:2307.06281): multiple choice, each question asked in every rotation of its options.

`questions_uri`: the official TSV (`index`, `question`, `hint`, `A`..`D`, `answer`, `category`, `image` in base64).
Rotations share the index modulo 1,000,000.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence

from llava import storage
from llava.errors import DataError, RowError
from llava.evaluation import choices, question_files, statistics
from llava.evaluation.benchmark import Benchmark, Profile, Question, Scored
from llava.evaluation.ratios import Ratios
from llava.evaluation.statistics import Interval

ROTATION = 1_000_000


class MMBench(Benchmark):
    """`accuracy`: a question counts when all its rotations were answered right; `accuracy_vanilla`: each by itself."""

    name = "mmbench"

    def read(self, uri: str) -> list[Question]:
        csv.field_size_limit(sys.maxsize)
        questions = []
        for file in question_files.files(uri):
            table = list(csv.DictReader(io.StringIO(storage.read_text(file)), delimiter="\t"))
            if not table:
                raise DataError(f"{file}: no questions in it; expected MMBench's TSV with a header line")
            images = {question_files.text(file, k, row, "index"): row.get("image") or "" for k, row in enumerate(table)}
            for index, row in enumerate(table):
                key = question_files.text(file, index, row, "index")
                image = images[key]
                if image in images:  # rotations may refer to another row's image
                    image = images[image]
                if not image:
                    raise RowError(file, index, "image", image, "a base64 image", problem="row-field")
                options = [row[letter] for letter in "ABCD" if (row.get(letter) or "").lower() not in ("", "nan")]
                hint = row.get("hint") or ""
                text = choices.ask(
                    question_files.text(file, index, row, "question"), options, "" if hint.lower() == "nan" else hint
                )
                letter = question_files.text(file, index, row, "answer")
                kind = str(row.get("category") or "all")
                gold = {"letter": letter, "options": options}
                group = str(int(key) % ROTATION)
                reference = f"data:image/jpeg;base64,{image}"
                questions.append(Question(key, (reference,), text, letter, kind, group, gold))
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        options, letter = question.gold["options"], question.gold["letter"]
        if profile == "llava-1.5":
            said = choices.letter_only(answer) or choices.stated(answer) or choices.by_text(answer, options)
        else:
            said = choices.understood(answer, options)
        return float(said == letter)

    def headline_ratios(self, scored: Sequence[Scored], profile: Profile) -> Ratios:
        groups: dict[str, list[float]] = {}
        for item in scored:
            groups.setdefault(item.question.cluster, []).append(item.scores[profile])
        share = [1 / len(groups[item.question.cluster]) for item in scored]
        return Ratios.ratio(
            [part * all(groups[item.question.cluster]) for part, item in zip(share, scored, strict=True)], share
        )

    def figures(self, scored: Sequence[Scored], profile: Profile) -> dict[str, Interval]:
        clusters = [item.question.cluster for item in scored]
        return {
            "accuracy": statistics.estimate(self.headline_ratios(scored, profile), clusters),
            "accuracy_vanilla": statistics.mean([item.scores[profile] for item in scored], clusters),
        }
