"""The offline teacher's questions, with the short answers that captions and boxes give."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from llava.expansion.teachers import words
from llava.expansion.teachers.describe import cell
from llava.expansion.teachers.scene import Region, Scene, Thing
from llava.written_numbers import NUMBER_WORDS

Pair = tuple[str, str]
Asker = Callable[[Scene, random.Random], list[Pair]]
"""Gives all questions of one form that the scene answers without doubt."""


def conversation(scene: Scene, rng: random.Random, turns: int) -> list[Pair]:
    """Up to `turns` different pairs: one of every family, then more at random; yes and no about equally often."""
    families: list[Sequence[Asker]] = [
        (_colour_by_noun, _colour_by_place),
        (_shape_by_colour, _shape_by_place),
        (_where,),
        (_count_all, _count_noun, _count_colour),
        (_presence_pair, _presence_noun, _presence_place),
        (_size,),
    ]
    chosen: dict[str, str] = {}
    # Presence twice, counts and places more than sizes: as many answers as the families have to tell apart.
    for family in [*families, families[4], families[0], families[1], families[3], families[2]]:
        if len(chosen) >= turns:
            break
        pair = _draw(scene, rng, family, chosen)
        if pair:
            chosen[pair[0]] = pair[1]
    for pair in _general(scene, rng):
        if len(chosen) >= 3:
            break
        chosen.setdefault(*pair)
    pairs = list(chosen.items())
    rng.shuffle(pairs)
    return pairs


def reasoning(scene: Scene, rng: random.Random, turns: int) -> list[Pair]:
    """Up to `turns` pairs about positions and sizes of the boxed objects relative to each other."""
    named = _named_regions(scene)
    chosen: dict[str, str] = {}
    for _ in range(4 * turns):
        if len(chosen) >= turns or not named:
            break
        if len(named) >= 2:
            first, second = rng.sample(named, 2)
            pair = rng.choice((_beside, _beside, _larger))(first, second, rng)
        else:
            pair = _half(named[0], rng)
        if pair:
            chosen.setdefault(*pair)
    for pair in _general(scene, rng):
        if len(chosen) >= 2:
            break
        chosen.setdefault(*pair)
    return list(chosen.items())


def _draw(scene: Scene, rng: random.Random, family: Sequence[Asker], taken: dict[str, str]) -> Pair | None:
    # The form is drawn first: forms have very different numbers of questions.
    for asker in rng.sample(family, len(family)):
        pairs = [pair for pair in asker(scene, rng) if pair[0] not in taken]
        if pairs:
            return rng.choice(pairs)
    return None


def _unique(values: list[str]) -> set[str]:
    return {value for value in values if values.count(value) == 1}


def _is_shape(thing: Thing) -> bool:
    return thing.noun in words.SHAPES


def _colour_by_noun(scene: Scene, rng: random.Random) -> list[Pair]:
    unique = _unique([thing.noun for thing in scene.things])
    plural = {noun for noun, number in scene.counts.items() if number > 1}
    return [(f"What color is the {t.noun}?", t.colour) for t in scene.things if t.noun in unique - plural]


def _colour_by_place(scene: Scene, rng: random.Random) -> list[Pair]:
    if not scene.complete:
        return []
    return [(f"What color is the shape {words.place_phrase(t.place)}?", t.colour) for t in scene.things if t.place]


def _shape_by_colour(scene: Scene, rng: random.Random) -> list[Pair]:
    unique = _unique([thing.colour for thing in scene.things])
    return [
        (f"What shape is the {t.colour} object?", t.noun) for t in scene.things if t.colour in unique and _is_shape(t)
    ]


def _shape_by_place(scene: Scene, rng: random.Random) -> list[Pair]:
    return [(f"What shape is {words.place_phrase(t.place)}?", t.noun) for t in scene.things if t.place and _is_shape(t)]


def _where(scene: Scene, rng: random.Random) -> list[Pair]:
    return [(f"Where is the {t.name}?", t.place) for t in scene.things if t.place]


def _size(scene: Scene, rng: random.Random) -> list[Pair]:
    return [(f"Is the {t.name} large or small?", t.size) for t in scene.things if t.size]


def _count_all(scene: Scene, rng: random.Random) -> list[Pair]:
    return [("How many shapes are there?", NUMBER_WORDS[len(scene.things)])] if scene.complete else []


def _count_noun(scene: Scene, rng: random.Random) -> list[Pair]:
    if scene.complete:
        nouns = [thing.noun for thing in scene.things]
        counts = {noun: nouns.count(noun) for noun in dict.fromkeys(nouns)}
    else:
        counts = {noun: number for noun, number in scene.counts.items() if noun != "shape"}
    return [(f"How many {words.plural(noun)} are there?", NUMBER_WORDS[number]) for noun, number in counts.items()]


def _count_colour(scene: Scene, rng: random.Random) -> list[Pair]:
    if not scene.complete:
        return []
    colours = [thing.colour for thing in scene.things]
    return [
        (f"How many {colour} shapes are there?", NUMBER_WORDS[colours.count(colour)])
        for colour in dict.fromkeys(colours)
    ]


def _presence_pair(scene: Scene, rng: random.Random) -> list[Pair]:
    if rng.random() < 0.5 or not scene.complete:
        return [(f"Is there {words.with_article(thing.name)}?", "yes") for thing in scene.things]
    seen = {(thing.colour, thing.noun) for thing in scene.things}
    colours: Sequence[str] = words.COLOURS[:8]
    nouns: Sequence[str] = words.DEMO_SHAPES
    if rng.random() < 0.5 and len(seen) > 1:  # colour and noun both there, but not together
        colours, nouns = sorted({c for c, _ in seen}), sorted({n for _, n in seen})
    absent = [(c, n) for c in colours for n in nouns if (c, n) not in seen]
    return [(f"Is there {words.with_article(f'{c} {n}')}?", "no") for c, n in absent]


def _presence_noun(scene: Scene, rng: random.Random) -> list[Pair]:
    if rng.random() < 0.5:
        return [
            (f"Is there {words.with_article(noun)}?", "yes") for noun in dict.fromkeys(t.noun for t in scene.things)
        ]
    there = {*scene.nouns, *(thing.noun for thing in scene.things)}
    candidates = words.DEMO_SHAPES if scene.complete else words.CERTAINLY_NAMED
    text = " ".join(scene.captions).lower()
    absent = [noun for noun in candidates if noun not in there and noun not in text]
    return [(f"Is there {words.with_article(noun)}?", "no") for noun in absent]


def _presence_place(scene: Scene, rng: random.Random) -> list[Pair]:
    taken = {thing.place for thing in scene.things}
    if not scene.complete or "" in taken:
        return []
    wanted = rng.random() < 0.5
    places = [place for place in words.PLACES if (place in taken) == wanted]
    return [(f"Is there anything {words.place_phrase(place)}?", "yes" if wanted else "no") for place in places]


def _general(scene: Scene, rng: random.Random) -> list[Pair]:
    """Questions that any captions answer, for scenes in which nothing more particular was found."""
    text = " ".join(scene.captions).lower()
    pairs = [
        (f"Is there {words.with_article(noun)} in the picture?", "yes") for noun in scene.nouns[:2] if noun != "person"
    ]
    absent = [noun for noun in words.CERTAINLY_NAMED if noun not in text]
    pairs += [(f"Is there {words.with_article(noun)} in the picture?", "no") for noun in rng.sample(absent, 2)]
    pairs += [("Where does this take place?", place) for place in words.PLACE_WORDS if f" {place}" in text][:1]
    rng.shuffle(pairs)
    return [*pairs, ("What does the picture show?", rng.choice(scene.captions) if scene.captions else "a picture")]


def _named_regions(scene: Scene) -> list[tuple[str, Region]]:
    """Boxes that a phrase names beyond doubt: `the red circle`, or `the dog` where there is only one."""
    unique = _unique([region.category for region in scene.regions])
    named = []
    for region in scene.regions:
        fitting = [t for t in scene.things if t.noun == region.category and t.place in ("", cell(region))]
        if len(fitting) == 1 and (fitting[0].place or region.category in unique):
            named.append((f"the {fitting[0].name}", region))
        elif region.category in unique:
            named.append((f"the {region.category}", region))
    return named


def _beside(a: tuple[str, Region], b: tuple[str, Region], rng: random.Random) -> Pair | None:
    axis = rng.randrange(2)
    distance = a[1].centre[axis] - b[1].centre[axis]
    if abs(distance) < 0.15:
        return None
    truth = ("to the left of", "above")[axis] if distance < 0 else ("to the right of", "below")[axis]
    other = {
        "to the left of": "to the right of",
        "to the right of": "to the left of",
        "above": "below",
        "below": "above",
    }
    yes = rng.random() < 0.5
    return f"Is {a[0]} {truth if yes else other[truth]} {b[0]}?", "yes" if yes else "no"


def _larger(a: tuple[str, Region], b: tuple[str, Region], rng: random.Random) -> Pair | None:
    ratio = a[1].extent / max(b[1].extent, 1e-6)
    if 0.8 < ratio < 1.25:
        return None
    return f"Which is larger, {a[0]} or {b[0]}?", (a if ratio > 1 else b)[0]


def _half(a: tuple[str, Region], rng: random.Random) -> Pair | None:
    axis = rng.randrange(2)
    position = a[1].centre[axis]
    if abs(position - 0.5) < 0.1:
        return None
    low, high = (("left", "right"), ("top", "bottom"))[axis]
    asked = rng.choice((low, high))
    return f"Is {a[0]} in the {asked} half of the picture?", "yes" if asked == (
        low if position < 0.5 else high
    ) else "no"
