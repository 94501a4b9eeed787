"""Region rows: a description for a box and a box for a description, in the words of LLaVA-1.5's mix665k.

Boxes are `[x1, y1, x2, y2]` in 0..1 with two decimals, of the original image or of the square it is padded to
(LLaVA-1.5 pads images before the tower sees them; say in the recipe which one a model was trained with).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Literal

from llava.expansion.rows.row import Row, with_image
from llava.expansion.sources.corpus import AnnotatedImage, Box

RegionFrame = Literal["original", "padded"]
TO_BOX = "Please provide the bounding box coordinate of the region this sentence describes: {description}"
TO_TEXT = "Please provide a short description for this region: {box}"
_MIN_SHARE = 0.005  # of the image's area: smaller things cannot be seen at 336 px
_APART = 0.08  # of the width: nearer things are not clearly left or right of each other


def region_rows(
    images: Iterable[AnnotatedImage], *, frame: RegionFrame, image_position: str, max_turns: int, seed: int
) -> Iterator[Row]:
    """One row an image that has a box a phrase can name beyond doubt; directions drawn at random."""
    for image in images:
        named = describe_boxes(image)
        if not named:
            continue
        rng = random.Random(f"{seed}:region:{image.path}")
        turns = []
        for description, box in rng.sample(named, min(len(named), max_turns)):
            written = written_box(image, box, frame)
            if rng.random() < 0.5:
                turns.append((TO_BOX.format(description=description), written))
            else:
                turns.append((TO_TEXT.format(box=written), description))
        where = rng.choice(("before", "after")) if image_position == "random" else image_position
        first = (with_image(turns[0][0], where), turns[0][1])
        yield Row(f"{image.stem}-region", image.path, "region", (first, *turns[1:]))


def describe_boxes(image: AnnotatedImage) -> list[tuple[str, Box]]:
    """Boxes with a phrase that fits no other box: the only one of its category, the leftmost, the rightmost; a
    description of their own, where no other box has the same."""
    if not image.width or not image.height:
        return []
    by_category: dict[str, list[Box]] = {}
    for box in image.boxes:
        by_category.setdefault(box.category, []).append(box)
    named = []
    for category, boxes in by_category.items():
        if any(box.crowd for box in boxes):
            continue
        if boxes[0].described:
            named += [(category, boxes[0])] if len(boxes) == 1 else []
            continue
        if len(boxes) == 1:
            named.append((f"the {category}", boxes[0]))
            continue
        ordered = sorted(boxes, key=lambda box: box.centre[0])
        gap = _APART * image.width
        if ordered[1].centre[0] - ordered[0].centre[0] > gap:
            named.append((f"the leftmost {category}", ordered[0]))
        if ordered[-1].centre[0] - ordered[-2].centre[0] > gap:
            named.append((f"the rightmost {category}", ordered[-1]))
    smallest = _MIN_SHARE * image.width * image.height
    return [(text, box) for text, box in named if box.area >= smallest]


def written_box(image: AnnotatedImage, box: Box, frame: RegionFrame) -> str:
    """`[x1, y1, x2, y2]`, two decimals, as fractions of the image or of its padded square."""
    width, height = float(image.width), float(image.height)
    left = top = 0.0
    if frame == "padded":
        side = max(width, height)
        left, top = (side - width) / 2, (side - height) / 2
        width = height = side
    corners = (
        (box.x + left) / width,
        (box.y + top) / height,
        (box.x + box.width + left) / width,
        (box.y + box.height + top) / height,
    )
    return "[" + ", ".join(f"{min(max(value, 0.0), 1.0):.2f}" for value in corners) + "]"
