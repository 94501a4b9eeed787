"""What can be read off a teacher's context: things with colour, size and place from captions, and boxes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from llava.expansion.teachers import words


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
_COLOUR = "|".join(words.COLOURS)
_NOUN = "|".join(sorted(map(re.escape, words.KNOWN_NOUNS), key=lambda w: (-len(w), w)))
_PLACE = "|".join(words.PLACES_LONGEST_FIRST)
_THING = re.compile(
    rf"\b(?:(small|large|little|big|tiny|huge) )?({_COLOUR}) ({_NOUN})\b(?: (?:in|on|at) the ({_PLACE})\b)?",
    re.IGNORECASE,
)
_COUNT = re.compile(
    rf"\b({'|'.join(words.NUMBERS[1:])}) ({'|'.join(sorted(words.PLURALS, key=lambda w: (-len(w), w)))}|shape)\b", re.I
)
_ANY_NOUN = re.compile(rf"\b({_NOUN}|{'|'.join(sorted(words.PLURALS, key=lambda w: (-len(w), w)))})\b", re.IGNORECASE)
_SIZES = {"small": "small", "little": "small", "tiny": "small", "large": "large", "big": "large", "huge": "large"}


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
    _read_counts(scene)
    total = scene.counts.get("shape")
    scene.complete = bool(total) and total == len(scene.things)
    return scene


def _read_things(scene: Scene) -> None:
    merged: dict[tuple[str, str], Thing] = {}
    seen: dict[str, None] = {}
    for caption in scene.captions:
        for size, colour, noun, place in _THING.findall(caption):
            key = (colour.lower(), noun.lower())
            thing = merged.setdefault(key, Thing(*key))
            thing.size = thing.size or _SIZES.get(size.lower(), "")
            thing.place = thing.place or place.lower()
        for noun in _ANY_NOUN.findall(caption):
            seen[words.singular(noun.lower())] = None
    scene.things = list(merged.values())
    scene.nouns = list(seen)


def _read_counts(scene: Scene) -> None:
    contradicted: set[str] = set()
    for caption in scene.captions:
        for number, noun in _COUNT.findall(caption):
            one, value = words.singular(noun.lower()), words.NUMBERS.index(number.lower())
            if scene.counts.setdefault(one, value) != value:
                contradicted.add(one)
    for noun in contradicted:
        del scene.counts[noun]
