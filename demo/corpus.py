"""Text of the demo world, without pictures: what its small language model reads before it is ever shown one.

Three kinds of document, all about scenes told in words: facts (a cue and what the scene says of it, many times over),
captions of one scene, and dialogues in the Vicuna v1 template whose first turn holds the scene told in words where a
picture will stand later. A scene is told as a sentence, a list or a map, or blended: a row of positions, each standing
for several words at once (``blends``). A blended position is the sum of its words' embeddings, and the nearest thing
in words to what a projector makes of a patch of a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from demo.captions import caption, five_captions
from demo.questions import QUESTION_KINDS, draw_question
from demo.scenes import PLACES, Scene, Signature, sample_scene

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
"""System text of the Vicuna v1 template."""

DESCRIBE: tuple[str, ...] = (
    "Describe the picture.",
    "Describe this image in detail.",
    "What is in the picture?",
    "What can you see in this image?",
    "Give a short description of the picture.",
)


BLEND = "<blend>"
"""Stands in a document's text for one blended position."""

BLEND_SIDE = 6
"""A blended scene has ``BLEND_SIDE`` x ``BLEND_SIDE`` positions, in reading order, as many as the tower has patches."""

CELL_SIDE = 3
"""Side of the shortest blended telling, a position a cell."""


@dataclass(frozen=True)
class Span:
    """A piece of a document; ``answer`` marks what follows from what stands before it."""

    text: str
    answer: bool


def told_as_sentence(scene: Scene, rng: np.random.Generator) -> str:
    """The whole truth as one of the world's captions."""
    return caption(scene, rng, size=True, place=True, count=bool(rng.integers(2)))


def told_as_list(scene: Scene, rng: np.random.Generator) -> str:
    """The whole truth as a list in reading order: ``top left large red circle; center small blue star``."""
    return "; ".join(f"{shape.place} {shape.size} {shape.colour} {shape.kind}" for shape in scene.shapes) + "."


def told_as_map(scene: Scene, rng: np.random.Generator) -> str:
    """The whole truth cell by cell, the empty ones too: ``- - large red circle - ...``."""
    by_cell = {shape.cell: f"{shape.size} {shape.colour} {shape.kind}" for shape in scene.shapes}
    return " ".join(by_cell.get(cell, "-") for cell in range(len(PLACES)))


_TELLINGS: tuple[Callable[[Scene, np.random.Generator], str], ...] = (told_as_sentence, told_as_list, told_as_map)


def tell(scene: Scene, rng: np.random.Generator) -> str:
    """Tell a scene in words, in one of three ways."""
    return _TELLINGS[int(rng.integers(len(_TELLINGS)))](scene, rng)


def blends(scene: Scene, rng: np.random.Generator, side: int = BLEND_SIDE) -> list[str]:
    """The whole truth as words to be blended, position by position: ``["top left", "large red circle top", ...]``.

    A shape covers one or more of its cell's positions; the others name their cell alone. ``side`` is a multiple of 3.
    """
    by_cell = {shape.cell: shape for shape in scene.shapes}
    per_cell = side // 3
    covered: dict[int, set[int]] = {}
    for cell, shape in by_cell.items():
        share = 0.9 if shape.size == "large" else 0.6
        inside = {int(i) for i in np.flatnonzero(rng.random(per_cell**2) < share)}
        covered[cell] = inside or {int(rng.integers(per_cell**2))}
    told = []
    for row in range(side):
        for column in range(side):
            cell = row // per_cell * 3 + column // per_cell
            inside_cell = row % per_cell * per_cell + column % per_cell
            words = PLACES[cell]
            if inside_cell in covered.get(cell, ()):
                words = f"{by_cell[cell].size} {by_cell[cell].colour} {by_cell[cell].kind} {words}"
            told.append(words)
    return told


def questions_and_answers(scene: Scene, rng: np.random.Generator, number: int) -> list[tuple[str, str]]:
    """Draw at most ``number`` different questions, all kinds equally likely, yes and no too."""
    asked: dict[str, str] = {}
    for _ in range(3 * number):  # scenes with one shape have few questions of some kinds: give up in the end
        kind = QUESTION_KINDS[int(rng.integers(len(QUESTION_KINDS)))]
        answer = ("yes", "no")[int(rng.integers(2))] if kind == "presence" else None
        if drawn := draw_question(scene, kind, rng, answer):
            asked.setdefault(drawn.question, drawn.answer)
        if len(asked) == number:
            break
    return list(asked.items())


def facts(scene: Scene, rng: np.random.Generator, told: str, number: int = 16) -> list[Span]:
    """What is told, then up to ``number`` times a cue and what the scene says of it: ``circle red; top left blue ...``.

    A cue fits exactly one shape, so that the answer has to be looked up: one step, where a question takes two.
    """
    kinds = [shape.kind for shape in scene.shapes]
    colours = [shape.colour for shape in scene.shapes]
    spans = [Span(f"{told}\n", False)]
    for _ in range(number):
        shape = scene.shapes[int(rng.integers(len(scene.shapes)))]
        form = int(rng.integers(6))
        if (form in (0, 2) and kinds.count(shape.kind) > 1) or (form == 1 and colours.count(shape.colour) > 1):
            continue
        cue, fact = (
            (shape.kind, shape.colour),
            (shape.colour, shape.kind),
            (shape.kind, shape.size),
            (f"{shape.colour} {shape.kind}", shape.place),
            (f"{shape.colour} {shape.kind}", shape.size),
            (shape.place, f"{shape.colour} {shape.kind}"),
        )[form]
        spans += [Span(f" {cue}", False), Span(f" {fact}", True), Span(";", False)]
    return spans


def dialogue(
    scene: Scene,
    rng: np.random.Generator,
    turns: int,
    *,
    told: str | None = None,
    describe: float = 0.2,
    system: float = 1.0,
) -> list[Span]:
    """A dialogue in the v1 template about a scene told in words (or as ``told``).

    With probability ``describe`` it opens with a request to describe the scene; with probability ``system`` the
    system text stands before it.
    """
    pairs = questions_and_answers(scene, rng, turns)
    if rng.random() < describe:
        whole = caption(scene, rng, size=True, place=True, count=bool(rng.integers(2)), shuffled=False)
        pairs[0] = (DESCRIBE[int(rng.integers(len(DESCRIBE)))], whole)
    spans: list[Span] = []
    before = f"{SYSTEM} " if rng.random() < system else ""
    opening = f"{before}USER: {told or tell(scene, rng)}\n"
    for question, answer in pairs:
        spans.append(Span(f"{opening}{question} ASSISTANT:", False))
        spans.append(Span(f" {answer}</s>", True))
        opening = "USER: "
    return spans


def one_caption(scene: Scene, rng: np.random.Generator, told: str) -> list[Span]:
    """What is told, then one of the scene's captions and a newline: the ``plain`` template's text."""
    return [Span(told, False), Span(f"{five_captions(scene, rng)[0]}\n", True)]


def unknown_scene(rng: np.random.Generator, forbidden: Collection[Signature]) -> Scene:
    """Draw a scene that is none of the ``forbidden`` ones."""
    while (scene := sample_scene(rng)).signature in forbidden:
        pass
    return scene


def document(rng: np.random.Generator, forbidden: Collection[Signature] = (), turns: int = 8) -> list[Span]:
    """Draw a document about a scene told in plain words: a dialogue, or one in six a caption."""
    scene = unknown_scene(rng, forbidden)
    if rng.random() < 1 / 6:
        return one_caption(scene, rng, f"{tell(scene, rng)}\n")
    return dialogue(scene, rng, turns)
