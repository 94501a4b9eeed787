"""From a teacher's reply to a row."""

from __future__ import annotations

import random
from collections.abc import Sequence

from llava.expansion.recipe.kinds import KindRecipe
from llava.expansion.recipe.requests import Request
from llava.expansion.rows.row import Row, with_image


def row_of(
    kind: KindRecipe,
    request: Request,
    pairs: Sequence[tuple[str, str]],
    questions: Sequence[str],
    image_position: str,
    seed: int,
) -> Row:
    """The row of one parsed reply; an `answer` reply gets its question from the kind's list.

    Args:
        image_position: `before` or `after` the first question, or `random`.
    """
    rng = random.Random(f"{seed}:{request.kind}:{request.image.path}")
    where = rng.choice(("before", "after")) if image_position == "random" else image_position
    if kind.grammar.form == "answer":
        pairs = [(rng.choice(questions), pairs[0][1])]
    first, *rest = pairs
    turns = ((with_image(first[0], where), first[1]), *rest)
    return Row(f"{request.image.stem}-{request.kind}", request.image.path, request.kind, turns)
