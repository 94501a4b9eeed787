"""What a row of a training file looks like on average: the figures that a plan is made from.

The row counts of the published files are theirs. Their text lengths are estimates for planning; `llava plan
--pretrain-data` and `--finetune-data` measure a file of your own with the recipe's tokenizer instead.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Corpus:
    """Averages over a training file.

    Attributes:
        rows: rows of the file.
        images: images of a row, on average.
        text_tokens: tokens of a row without its visual ones.
        supervised: tokens of a row that carry loss.
        measured: False where the lengths are estimates.
    """

    name: str
    rows: int
    images: float
    text_tokens: float
    supervised: float
    measured: bool


CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus("blip-laion-cc-sbu-558k", 558_128, 1.0, 24, 22, measured=False),
        Corpus("llava-instruct-158k", 157_712, 1.0, 300, 200, measured=False),
        Corpus("llava-v1.5-mix665k", 665_298, (665_298 - 40_688) / 665_298, 256, 128, measured=False),
    )
}


def default_corpus(recipe: str, stage: str) -> Corpus:
    """What the published recipe of that name was trained on; the 1.5 files for any other."""
    if stage == "pretrain":
        return CORPORA["blip-laion-cc-sbu-558k"]
    return CORPORA["llava-instruct-158k" if recipe.startswith("llava-v1-") else "llava-v1.5-mix665k"]
