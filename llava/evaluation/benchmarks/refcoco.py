"""RefCOCO, RefCOCO+ and RefCOCOg (Yu et al. 2016): where is what a sentence says? Right at half overlap.

Boxes are asked for as mix665k has them: `[x1, y1, x2, y2]` as shares of the image padded to a square. Files are read in
the forms they are handed round in: REFER's own folder (`refs(unc).p` beside `instances.json`), COCO's form with a
caption an image (`finetune_refcoco_testA.json`), JSON lines with `sent` and corners (`refcoco_testA.jsonl`), and JSON
lines with `question_id`, `image`, `caption`, `bbox` (left, top, width, height in pixels), `width` and `height`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llava.errors import RowError
from llava.evaluation import layouts, question_files, refer
from llava.evaluation.benchmark import Benchmark, Profile, Question
from llava.manifest import sha256

ASK = "Please provide the bounding box coordinate of the region this sentence describes: "  # as mix665k asks
_NUMBER = r"(-?\d*\.?\d+)"
_BOX = re.compile(rf"\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]")
_LOOSE = re.compile(rf"{_NUMBER}[\s,;]+{_NUMBER}[\s,;]+{_NUMBER}[\s,;]+{_NUMBER}")
Box = tuple[float, float, float, float]


class RefCOCO(Benchmark):
    """Accuracy at intersection over union >= 0.5; `robust` also takes boxes without brackets or in pixels."""

    name = "refcoco"
    max_new_tokens = 48
    image_folders = ("train2014", "images/train2014", "images")

    def read(self, uri: str) -> list[Question]:
        if layouts.is_folder(uri):
            return _told_apart([_question(*item) for item in refer.read(uri)])
        questions = []
        for file in question_files.files(uri):
            if file.endswith(".json"):
                questions += [_question(*item) for item in self._coco(file)]
            else:
                questions += [self._line(file, index, row) for index, row in question_files.json_lines(file)]
        return _told_apart(questions)

    @staticmethod
    def _line(file: str, index: int, row: Mapping[str, Any]) -> Question:
        image = question_files.text(file, index, row, "image")
        size = _number(file, index, row, "width"), _number(file, index, row, "height")
        box = _box(file, index, row.get("bbox"))
        kind = question_files.given(file, index, row, "split", "all")
        if "sent" in row:
            left, top, right, bottom = box
            if right <= left or bottom <= top:
                raise RowError(file, index, "bbox", box, "[left, top, right, bottom]", problem="row-field")
            box = (left, top, right - left, bottom - top)
            text = question_files.text(file, index, row, "sent")
            return _question(f"{image}-{index}", image, text, box, size, kind)
        text = question_files.text(file, index, row, "caption")
        return _question(question_files.text(file, index, row, "question_id"), image, text, box, size, kind)

    @staticmethod
    def _coco(file: str) -> list[refer.Item]:
        boxes = {str(row.get("image_id")): row for row in question_files.table(file, "annotations")}
        items = []
        for index, row in enumerate(question_files.table(file, "images")):
            key = question_files.text(file, index, row, "id")
            gold = question_files.gold_of(boxes, key, file, index, f"the annotations of {file}")
            size = _number(file, index, row, "width"), _number(file, index, row, "height")
            image = question_files.text(file, index, row, "file_name")
            text = question_files.text(file, index, row, "caption")
            kind = question_files.given(file, index, row, "dataset_name", "all")
            items.append((key, image, text, _box(file, index, gold.get("bbox")), size, kind))
        return items

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


def _question(key: str, image: str, text: str, box: Box, size: tuple[float, float], kind: str) -> Question:
    """One sentence; `box` is (left, top, width, height) in pixels of an image of `size` (width, height)."""
    gold = {"box": square_shares(list(box), *size), "size": size}
    shown = "[" + ", ".join(f"{share:.2f}" for share in gold["box"]) + "]"
    return Question(key, (image,), ASK + text, shown, kind, image, gold)


def _box(file: str, index: int, box: object) -> Box:
    if not (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in box)
    ):
        raise RowError(file, index, "bbox", box, "[left, top, width, height]", problem="row-field")
    left, top, wide, high = (float(value) for value in box)
    return left, top, wide, high


def _number(file: str, index: int, row: Mapping[str, Any], field: str) -> float:
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise RowError(file, index, field, value, "pixels, more than 0", problem="row-field")
    return float(value)


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
