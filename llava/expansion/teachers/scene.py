"""What can be read off a teacher's context: things with colour, size and place from captions, and boxes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from llava.expansion.teachers import words
from llava.written_numbers import NUMBER_WORDS


@dataclass(slots=True)
class Thing:
    """Something a caption names with its colour; size and place where some caption tells them."""

    colour: str
    noun: str
    size: str = ""
    place: str = ""

    @property
    def name(self) -> str:
        return f"{self.colour} {self.noun}"


@dataclass(frozen=True, slots=True)
class Region:
    """One box line; corners as fractions of the picture."""

    category: str
    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    @property
    def extent(self) -> float:
        return max(self.x2 - self.x1, self.y2 - self.y1)


@dataclass(slots=True)
class Scene:
    """All of it.

    Attributes:
        counts: noun -> number stated in a caption; nouns with contradicting numbers are left out.
        nouns: known nouns in any caption, in order of appearance.
        complete: the captions list everything there is (they give a total that the listed things reach).
    """

    captions: list[str]
    regions: list[Region]
    things: list[Thing] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    nouns: list[str] = field(default_factory=list)
    complete: bool = False


_BOX = re.compile(r"^(.+): \[([\d.]+), ([\d.]+), ([\d.]+), ([\d.]+)\]$")
_WORD = re.compile(r"[a-z]+|[.,:;]")
_LONGEST_NOUN = 2  # words
_SIZES = {"small": "small", "little": "small", "tiny": "small", "large": "large", "big": "large", "huge": "large"}


_COLOURS = frozenset(words.COLOURS)
_FIRST_WORDS = {noun.split()[0] for noun in (*words.KNOWN_NOUNS, *words.PLURALS, "shape")}
_COUNTS = {word: number for number, word in enumerate(NUMBER_WORDS) if number}


def read_scene(context: str) -> Scene:
    """Parse a context as `ContextRecipe` renders it: captions, then box lines."""
    captions: list[str] = []
    regions: list[Region] = []
    for line in context.splitlines():
        match = _BOX.match(line)
        if match:
            x1, y1, x2, y2 = (float(value) for value in match.groups()[1:])
            regions.append(Region(match.group(1), x1, y1, x2, y2))
        elif line.strip():
            captions.append(line.strip())
    scene = Scene(captions, regions)
    _read_things(scene)
    total = scene.counts.get("shape")
    scene.complete = bool(total) and total == len(scene.things)
    return scene


def _read_things(scene: Scene) -> None:
    merged: dict[tuple[str, str], Thing] = {}
    seen: dict[str, None] = {}
    contradicted: set[str] = set()
    for caption in scene.captions:
        tokens = _WORD.findall(caption.lower())
        at = 0
        while at < len(tokens):
            noun, length = _noun_at(tokens, at)
            if not noun:
                at += 1
                continue
            one = words.singular(noun)
            before = tokens[at - 1] if at else ""
            if before in _COLOURS and noun in words.KNOWN_NOUNS:
                thing = merged.setdefault((before, noun), Thing(before, noun))
                thing.size = thing.size or _SIZES.get(tokens[at - 2] if at > 1 else "", "")
                thing.place = thing.place or _place_at(tokens, at + length)
            count = _COUNTS.get(before, 0) if noun != one or before == "one" else 0
            if count and scene.counts.setdefault(one, count) != count:
                contradicted.add(one)
            if one != "shape":
                seen[one] = None
            at += length
    for noun in contradicted:
        del scene.counts[noun]
    scene.things = list(merged.values())
    scene.nouns = list(seen)


def _noun_at(tokens: list[str], at: int) -> tuple[str, int]:
    """The longest known noun, singular or plural, that starts here, and its length in words."""
    if tokens[at] not in _FIRST_WORDS:
        return "", 0
    for length in range(_LONGEST_NOUN, 0, -1):
        noun = " ".join(tokens[at : at + length])
        if noun in words.KNOWN_NOUNS or noun in words.PLURALS or noun == "shape":
            return noun, length
    return "", 0


def _place_at(tokens: list[str], at: int) -> str:
    """The place in `at the top left` and the like, if that follows."""
    if tokens[at : at + 1] and tokens[at] in ("in", "on", "at") and tokens[at + 1 : at + 2] == ["the"]:
        for length in (2, 1):
            place = " ".join(tokens[at + 2 : at + 2 + length])
            if place in words.PLACES:
                return place
    return ""
