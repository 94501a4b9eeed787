"""Captions of the demo world: five sentences a scene, of varied wording and varied completeness, as COCO has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from demo.scenes import Scene, Shape
from llava.written_numbers import NUMBER_WORDS

NUMBERS = NUMBER_WORDS[:5]

_OPENINGS_ALL: tuple[str, ...] = (
    "{items}.",
    "There is {items}.",
    "The picture shows {items}.",
    "A picture of {items}.",
    "We can see {items}.",
)
_OPENINGS_COUNT: tuple[str, ...] = (
    "{count}: {items}.",
    "A picture with {count}: {items}.",
    "There {are} {count}: {items}.",
)


def with_article(words: str) -> str:
    """``red circle`` -> ``a red circle``, ``orange ring`` -> ``an orange ring``."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def place_phrase(place: str) -> str:
    """``top left`` -> ``at the top left``, ``left`` -> ``on the left``, ``center`` -> ``in the center``."""
    preposition = {"center": "in", "left": "on", "right": "on"}.get(place, "at")
    return f"{preposition} the {place}"


def describe(shape: Shape, *, size: bool, place: bool) -> str:
    """Name one shape, such as ``a small red circle at the top left``."""
    words = f"{shape.size} {shape.colour} {shape.kind}" if size else f"{shape.colour} {shape.kind}"
    return f"{with_article(words)} {place_phrase(shape.place)}" if place else with_article(words)


def enumerate_items(items: Sequence[str]) -> str:
    """``["a", "b", "c"]`` -> ``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def caption(
    scene: Scene, rng: np.random.Generator, *, size: bool, place: bool, count: bool, shuffled: bool = True
) -> str:
    """Write one sentence that names every shape of the scene.

    ``size``, ``place`` and ``count`` choose what it tells; the shapes come in random order unless ``shuffled`` is
    false, and then in reading order.
    """
    order = rng.permutation(len(scene.shapes)) if shuffled else np.arange(len(scene.shapes))
    items = enumerate_items([describe(scene.shapes[int(i)], size=size, place=place) for i in order])
    number = len(scene.shapes)
    counted = f"{NUMBERS[number]} shape{'s' if number > 1 else ''}"
    template = str(rng.choice(_OPENINGS_COUNT if count else _OPENINGS_ALL))
    sentence = template.format(items=items, count=counted, are="are" if number > 1 else "is")
    return sentence[0].upper() + sentence[1:]


def five_captions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Five captions as five annotators might write them: three say where things are, two of these how large."""
    written = [
        caption(scene, rng, size=True, place=True, count=False),
        caption(scene, rng, size=True, place=True, count=True),
        caption(scene, rng, size=False, place=True, count=False, shuffled=False),
        caption(scene, rng, size=False, place=False, count=True),
        caption(scene, rng, size=True, place=False, count=False),
    ]
    return [written[int(i)] for i in rng.permutation(len(written))]
