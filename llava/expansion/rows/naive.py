"""Naive pairs: a caption as the answer, plain (`<image>` alone) or to a brief question (LLaVA, 2023, section 3)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from llava.expansion.rows.row import Row, with_image
from llava.expansion.sources.corpus import AnnotatedImage

ImagePosition = Literal["before", "after", "random"]


def naive_rows(
    images: Iterable[AnnotatedImage],
    *,
    questions: Sequence[str],
    with_question: bool,
    image_position: ImagePosition,
    captions_per_image: int,
    seed: int,
) -> Iterator[Row]:
    """One row a caption, up to `captions_per_image` (0: all) drawn at random from each image."""
    for image in images:
        rng = random.Random(f"{seed}:naive:{image.path}")
        number = len(image.captions)
        wanted = number if captions_per_image == 0 else min(captions_per_image, number)
        for order, index in enumerate(rng.sample(range(number), wanted)):
            question = rng.choice(questions) if with_question else ""
            where = rng.choice(("before", "after")) if image_position == "random" else image_position
            human = with_image(question, where)
            yield Row(f"{image.stem}-naive-{order}", image.path, "naive", ((human, image.captions[index]),))
