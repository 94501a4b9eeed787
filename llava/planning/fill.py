"""How full packs are, and how many micro-steps an optimiser step takes, by laying a step out as training does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llava.config import TrainRecipe
from llava.data.layout import pack_rows, pad_rows
from llava.planning.corpora import Corpus

STEPS = 3


@dataclass(frozen=True)
class Fill:
    """A step's layout.

    Attributes:
        micro_steps: micro-batches of each rank.
        share: tokens of rows to tokens that packs (or padded batches) have room for.
        rows: rows in a micro-batch, on average.
        bound: the capacity that ends most packs: `tokens` or `images`.
    """

    micro_steps: float
    share: float
    rows: float
    bound: str


def fill_of(train: TrainRecipe, corpus: Corpus, *, tokens_per_image: int, tiles: int, gpus: int) -> Fill:
    """Lay out a few steps of rows that have the corpus's averages.

    Text lengths are spread exponentially about their mean, which is how files of short and long answers look; images
    come to the share of rows that have one. Rows are as long as `max_length` allows.

    Args:
        tokens_per_image, tiles: of a typical image.
        gpus: ranks.
    """
    count = train.global_batch_size * STEPS
    random = np.random.default_rng(0)
    text = -np.log1p(-(np.arange(count) + 0.5) / count) * corpus.text_tokens
    whole, part = divmod(corpus.images, 1)
    images = (whole + (np.arange(count) < round(part * count))).astype(np.int64)
    words = np.maximum(1, random.permutation(text)).astype(np.int64)
    lengths = np.minimum(words + images * tokens_per_image, train.max_length)
    order = random.permutation(count)
    micro_steps, places, packs, by_images = 0, 0, 0, 0
    for step in range(STEPS):
        rows = order[step * train.global_batch_size : (step + 1) * train.global_batch_size]
        chosen, units = lengths[rows].astype(np.int32), (images[rows] * tiles).astype(np.int32)
        if train.packing:
            units = np.minimum(units, train.pack_images)
            groups = pack_rows(chosen, units, train.pack_tokens, train.pack_images, gpus)
            places += len(groups) * train.pack_tokens
            mean = float(chosen.mean())
            by_images += sum(
                train.pack_images - int(units[g].sum()) < tiles and train.pack_tokens - int(chosen[g].sum()) >= mean
                for g in groups
                if g
            )
        else:
            groups = pad_rows(chosen, train.micro_batch_size, gpus)
            places += sum(len(g) * int(chosen[g].max()) for g in groups if len(g))
        micro_steps += len(groups) // gpus
        packs += len(groups)
    return Fill(
        micro_steps=micro_steps / STEPS,
        share=float(lengths.sum()) / max(1, places),
        rows=count / max(1, packs),
        bound="images" if by_images * 2 > packs else "tokens",
    )
