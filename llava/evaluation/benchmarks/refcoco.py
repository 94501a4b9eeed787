"""RefCOCO (Yu et al. 2016): where is what the sentence says? Right when the box overlaps by half.

`questions_uri`: JSON lines with `question_id`, `image`, `caption`, `bbox` (left, top, width, height in pixels) and the
image's `width` and `height`. Boxes are asked for as mix665k has them: `[x1, y1, x2, y2]` as shares of the image
padded to a square.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from llava.errors import RowError
from llava.evaluation import question_files
from llava.evaluation.benchmark import Benchmark, Profile, Question
from llava.manifest import sha256

ASK = "\nPlease provide the bounding box coordinate of the region this sentence describes."
_NUMBER = r"(-?\d*\.?\d+)"
_BOX = re.compile(rf"\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]")
_LOOSE = re.compile(rf"{_NUMBER}[\s,;]+{_NUMBER}[\s,;]+{_NUMBER}[\s,;]+{_NUMBER}")
Box = tuple[float, float, float, float]


class RefCOCO(Benchmark):
    """Accuracy at intersection over union >= 0.5; `robust` also takes boxes without brackets or in pixels."""

    name = "refcoco"
    max_new_tokens = 48

    def read(self, uri: str) -> list[Question]:
        questions = []
        for file in question_files.files(uri):
            for index, row in question_files.json_lines(file):
                box, image = row.get("bbox"), question_files.text(file, index, row, "image")
                if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)):
                    raise RowError(file, index, "bbox", box, "[left, top, width, height]", problem="row-field")
                size = (
                    float(question_files.text(file, index, row, "width")),
                    float(question_files.text(file, index, row, "height")),
                )
                gold = {"box": square_shares(box, *size), "size": size}
                text = question_files.text(file, index, row, "caption")
                key = question_files.text(file, index, row, "question_id")
                shown = "[" + ", ".join(f"{share:.2f}" for share in gold["box"]) + "]"
                kind = str(row.get("split") or "all")
                questions.append(Question(key, (image,), text + ASK, shown, kind, image, gold))
        return _told_apart(questions)

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        found = _BOX.search(answer)
        if found is None and profile == "robust":
            found = _LOOSE.search(answer)
        if found is None:
            return 0.0
        left, top, right, bottom = (float(value) for value in found.groups())
        if profile == "robust" and max(left, top, right, bottom) > 1.5:  # pixels
            left, top, right, bottom = square_shares([left, top, right - left, bottom - top], *question.gold["size"])
        return float(overlap((left, top, right, bottom), question.gold["box"]) >= 0.5)


def _told_apart(questions: list[Question]) -> list[Question]:
    """Ids made unique by the sentence where an annotation comes with several, as it does in RefCOCO."""
    times = Counter(question.id for question in questions)
    return [
        replace(question, id=f"{question.id}-{sha256(question.text.encode())[:8]}")
        if times[question.id] > 1
        else question
        for question in questions
    ]


def square_shares(box: list[float], width: float, height: float) -> Box:
    """(left, top, width, height) in pixels to corners as shares of the image padded to a square."""
    side = max(width, height)
    dx, dy = (side - width) / 2, (side - height) / 2
    left, top, wide, high = box
    return (left + dx) / side, (top + dy) / side, (left + wide + dx) / side, (top + high + dy) / side


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes given by corners; 0 for a box turned inside out."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    shared = wide * high
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
