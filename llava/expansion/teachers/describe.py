"""The offline teacher's detailed descriptions."""

from __future__ import annotations

import random
from collections import Counter

from llava.expansion.teachers.scene import Region, Scene, Thing
from llava.expansion.teachers.words import enumerate_items, place_phrase, plural, with_article
from llava.written_numbers import NUMBER_WORDS

_FEWEST_WORDS = 8


def describe(scene: Scene, rng: random.Random) -> str:
    """One paragraph: all things where the captions list them all, else captions and what the boxes add."""
    if scene.complete:
        number = len(scene.things)
        items = enumerate_items([_item(thing) for thing in rng.sample(scene.things, number)])
        counted = f"There is {NUMBER_WORDS[1]} shape" if number == 1 else f"There are {NUMBER_WORDS[number]} shapes"
        return f"{counted}: {items}."
    sentences = list(dict.fromkeys(_sentence(caption) for caption in sorted(scene.captions, key=len, reverse=True)))[:2]
    sentences += _boxes(scene.regions)
    text = " ".join(sentences)
    return text if len(text.split()) >= _FEWEST_WORDS else f"The picture can be summed up like this: {text}"


def _item(thing: Thing) -> str:
    words = with_article(f"{thing.size} {thing.name}" if thing.size else thing.name)
    return f"{words} {place_phrase(thing.place)}" if thing.place else words


def _sentence(caption: str) -> str:
    text = caption.rstrip(" .")
    return f"{text[0].upper()}{text[1:]}."


def _boxes(regions: list[Region]) -> list[str]:
    sentences = []
    for category, number in Counter(region.category for region in regions).most_common(6):
        if number == 1:
            region = next(region for region in regions if region.category == category)
            sentences.append(f"There is {with_article(category)} {place_phrase(cell(region))}.")
        elif number < len(NUMBER_WORDS):
            sentences.append(f"There are {NUMBER_WORDS[number]} {plural(category)}.")
        else:
            sentences.append(f"There are many {plural(category)}.")
    return sentences


def cell(region: Region) -> str:
    """Which of the nine thirds of the picture the centre lies in."""
    x, y = region.centre
    row, column = ("top", "", "bottom")[min(int(y * 3), 2)], ("left", "", "right")[min(int(x * 3), 2)]
    return f"{row} {column}".strip() or "center"
