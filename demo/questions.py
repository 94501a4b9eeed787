"""Questions about a scene, answered from the scene itself: the benchmark of the demo world.

Each has exactly one right answer of one or two words, and cannot be answered without the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.captions import NUMBERS, place_phrase, with_article
from demo.scenes import COLOURS, KINDS, PLACES, Scene

QUESTION_KINDS: tuple[str, ...] = ("colour", "shape", "position", "count", "presence", "size")


@dataclass(frozen=True)
class Question:
    """A question, its one answer, and which of ``QUESTION_KINDS`` it is."""

    kind: str
    question: str
    answer: str


def plural(kind: str) -> str:
    """``circle`` -> ``circles``, ``cross`` -> ``crosses``."""
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


def _colour_questions(scene: Scene) -> list[Question]:
    kinds = [shape.kind for shape in scene.shapes]
    by_kind = [
        Question("colour", f"What color is the {shape.kind}?", shape.colour)
        for shape in scene.shapes
        if kinds.count(shape.kind) == 1
    ]
    by_place = [
        Question("colour", f"What color is the shape {place_phrase(shape.place)}?", shape.colour)
        for shape in scene.shapes
    ]
    return by_kind + by_place


def _shape_questions(scene: Scene) -> list[Question]:
    colours = [shape.colour for shape in scene.shapes]
    by_colour = [
        Question("shape", f"What shape is the {shape.colour} object?", shape.kind)
        for shape in scene.shapes
        if colours.count(shape.colour) == 1
    ]
    by_place = [Question("shape", f"What shape is {place_phrase(shape.place)}?", shape.kind) for shape in scene.shapes]
    return by_colour + by_place


def _position_questions(scene: Scene) -> list[Question]:
    return [Question("position", f"Where is the {shape.colour} {shape.kind}?", shape.place) for shape in scene.shapes]


def _count_questions(scene: Scene) -> list[Question]:
    kinds = [shape.kind for shape in scene.shapes]
    colours = [shape.colour for shape in scene.shapes]
    asked = [Question("count", "How many shapes are there?", NUMBERS[len(scene.shapes)])]
    asked += [
        Question("count", f"How many {plural(kind)} are there?", NUMBERS[kinds.count(kind)])
        for kind in KINDS
        if kind in kinds
    ]
    asked += [
        Question("count", f"How many {colour} shapes are there?", NUMBERS[colours.count(colour)])
        for colour in COLOURS
        if colour in colours
    ]
    return asked


def _presence_questions(scene: Scene) -> list[Question]:
    seen = {(shape.colour, shape.kind) for shape in scene.shapes}
    kinds, cells = {kind for _, kind in seen}, {shape.cell for shape in scene.shapes}
    asked = [
        Question("presence", f"Is there {with_article(f'{colour} {kind}')}?", "yes" if (colour, kind) in seen else "no")
        for colour in COLOURS
        for kind in KINDS
    ]
    asked += [
        Question("presence", f"Is there {with_article(kind)}?", "yes" if kind in kinds else "no") for kind in KINDS
    ]
    asked += [
        Question("presence", f"Is there anything {place_phrase(place)}?", "yes" if cell in cells else "no")
        for cell, place in enumerate(PLACES)
    ]
    return asked


def _size_questions(scene: Scene) -> list[Question]:
    return [
        Question("size", f"Is the {shape.colour} {shape.kind} large or small?", shape.size) for shape in scene.shapes
    ]


_ASKERS = {
    "colour": _colour_questions,
    "shape": _shape_questions,
    "position": _position_questions,
    "count": _count_questions,
    "presence": _presence_questions,
    "size": _size_questions,
}


def all_questions(scene: Scene, kind: str) -> list[Question]:
    """Every question of one kind that the scene answers without doubt."""
    return _ASKERS[kind](scene)


def draw_question(scene: Scene, kind: str, rng: np.random.Generator, answer: str | None = None) -> Question | None:
    """Draw a question of one kind, with the given answer if one is given; None where the scene has no such question.

    The form of words is drawn first and the question among those of that form then, since the forms are of very
    different number (48 questions of presence name a colour and a kind, 9 a place, 6 a kind).
    """
    asked = [question for question in all_questions(scene, kind) if answer is None or question.answer == answer]
    if not asked:
        return None
    forms = sorted({_form(question) for question in asked})
    form = forms[int(rng.integers(len(forms)))]
    asked = [question for question in asked if _form(question) == form]
    if kind == "presence" and form == "colour kind" and rng.random() < 0.5:
        asked = _hard(scene, asked) or asked
    return asked[int(rng.integers(len(asked)))]


def _mentions(question: Question) -> set[str]:
    return set(question.question.rstrip("?").split())


def _form(question: Question) -> str:
    """What a question names: a colour, a kind, both, or neither (then a place, or the picture as a whole)."""
    words = _mentions(question)
    names_kind = bool(words & {*KINDS, *map(plural, KINDS)})
    return " ".join(["colour"] * bool(words & set(COLOURS)) + ["kind"] * names_kind)


def _hard(scene: Scene, asked: list[Question]) -> list[Question]:
    """The questions whose colour and kind both occur in the scene, together or apart."""
    colours = {shape.colour for shape in scene.shapes}
    kinds = {shape.kind for shape in scene.shapes}
    return [question for question in asked if colours & _mentions(question) and kinds & _mentions(question)]


def answers_of(kind: str) -> tuple[str, ...]:
    """Every answer a question of this kind can have."""
    return {
        "colour": tuple(COLOURS),
        "shape": KINDS,
        "position": PLACES,
        "count": NUMBERS[1:],
        "presence": ("yes", "no"),
        "size": ("small", "large"),
    }[kind]
