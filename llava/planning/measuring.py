"""A training file's averages, measured with the recipe's own tokenizer and template instead of assumed."""

from __future__ import annotations

import numpy as np

from llava.config import Recipe, TrainRecipe
from llava.data.labels import Encoded, RowEncoder
from llava.data.records import read_records
from llava.data.templates import get_template
from llava.errors import DataError, RowError
from llava.model.special_tokens import load_tokenizer
from llava.planning.corpora import Corpus

MOST_ROWS = 2000


def measure(recipe: Recipe, stage: str, uri: str) -> tuple[Corpus, list[RowError]]:
    """Averages over at most `MOST_ROWS` evenly spaced rows of a file, and the rows that training would leave out.

    Rows that cannot be used (among all, for their form; among those looked at, for their text) count in no average.

    Raises:
        DataError: the file cannot be read as rows, or none of them can be used.
    """
    train: TrainRecipe = getattr(recipe, stage)
    file = read_records(uri)
    encoder = RowEncoder(get_template(train.template), load_tokenizer(recipe.model.language_model))
    count = len(file.records)
    chosen_S = np.linspace(0, count - 1, min(count, MOST_ROWS)).round().astype(int)
    sample = [file.records[int(at)] for at in chosen_S]
    # One placeholder an image: text alone is measured, visual tokens come from the model's shape.
    rows = encoder.encode_all(sample, [[1] * len(record.images) for record in sample], file=uri)
    problems = [*file.problems, *(row for row in rows if isinstance(row, RowError))]
    usable = [(len(record.images), row) for record, row in zip(sample, rows, strict=True) if isinstance(row, Encoded)]
    if not usable:
        raise DataError(f"{uri}: none of its {file.total} rows can be used; the first: {problems[0]}")
    return Corpus(
        uri,
        count,
        images=float(np.mean([images for images, _ in usable])),
        text_tokens=float(np.mean([len(row.input_ids) - images for images, row in usable])),
        supervised=float(np.mean([int((row.labels != -100).sum()) for _, row in usable])),
        measured=True,
    ), problems
