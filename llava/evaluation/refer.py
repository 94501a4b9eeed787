"""REFER's own folders (lichengunc/refer): `refs(unc).p` with the sentences beside `instances.json` with the boxes.

All splits but `train` are read; a sentence's kind is its split (`val`, `testA`, `testB`, `test`).
"""

from __future__ import annotations

from typing import Any

from llava import storage
from llava.errors import DataError
from llava.evaluation import layouts, question_files
from llava.evaluation.layouts import Form, Part
from llava.evaluation.plain_pickle import plain_data

SOURCE = "https://github.com/lichengunc/refer"
# (id, image, sentence, (left, top, width, height), (image's width, height), split)
Item = tuple[str, str, str, tuple[float, float, float, float], tuple[float, float], str]
FORMS = tuple(
    Form(
        f"REFER's {split}",
        (Part("refs", SOURCE, (f"refs({split}).p",)), Part("instances", SOURCE, ("instances.json",))),
    )
    for split in ("unc", "umd", "google")
)


def read(folder: str) -> list[Item]:
    """Every sentence of one of REFER's folders (`refcoco`, `refcoco+`, `refcocog`), training ones aside.

    Raises:
        DataError: files are missing, or not what REFER ships.
    """
    found = layouts.find(folder, FORMS)
    instances = found["instances"]
    boxes = {str(row.get("id")): row.get("bbox") for row in question_files.table(instances, "annotations")}
    images = {str(row.get("id")): row for row in question_files.table(instances, "images")}
    refs = plain_data(storage.read_bytes(found["refs"]), found["refs"])
    if not isinstance(refs, list):
        raise DataError(f"{found['refs']}: found {type(refs).__name__}; expected a list of references")
    items: list[Item] = []
    for index, row in enumerate(refs):
        try:
            if row["split"] == "train":
                continue
            image = images[str(row["image_id"])]
            left, top, wide, high = (float(value) for value in boxes[str(row["ann_id"])] or ())
            size = float(image["width"]), float(image["height"])
            items += [
                (
                    str(sentence["sent_id"]),
                    str(image["file_name"]),
                    question_files.text(found["refs"], index, sentence, "sent"),
                    (left, top, wide, high),
                    size,
                    question_files.text(found["refs"], index, row, "split"),
                )
                for sentence in _sentences(row)
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{found['refs']}: reference {index}: {error!r}; expected a reference as REFER has them"
            ) from error
    if not items:
        raise DataError(f"{found['refs']}: no sentences outside the training split")
    return items


def _sentences(row: dict[str, Any]) -> list[dict[str, Any]]:
    sentences: list[dict[str, Any]] = row["sentences"]
    return sentences
