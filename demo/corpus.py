"""Text of the demo world, without pictures: what its small language model reads before it is ever shown one.

Three kinds of document, all about scenes told in words: captions of one scene, dialogues in the Vicuna v1 template
whose first turn holds the scene told in words where a picture will stand later, and the same with a request to
describe it. A scene is told as a sentence, a list or a map, or blended: a row of positions, each standing for
several words at once (``blends``). A blended position is the sum of its words' embeddings, and the nearest thing in
words to what a projector makes of a patch of a picture.
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
"""A blended scene has ``BLEND_SIDE`` x ``BLEND_SIDE`` positions, in reading order."""


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


def blends(scene: Scene, rng: np.random.Generator) -> list[str]:
    """The whole truth as words to be blended, position by position: ``["top left", "large red circle top", ...]``.

    A shape covers one or more of its cell's positions; the others name their cell alone.
    """
    by_cell = {shape.cell: shape for shape in scene.shapes}
    per_cell = BLEND_SIDE // 3
    covered: dict[int, set[int]] = {}
    for cell, shape in by_cell.items():
        share = 0.9 if shape.size == "large" else 0.6
        inside = {int(i) for i in np.flatnonzero(rng.random(per_cell**2) < share)}
        covered[cell] = inside or {int(rng.integers(per_cell**2))}
    told = []
    for row in range(BLEND_SIDE):
        for column in range(BLEND_SIDE):
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


def dialogue(
    scene: Scene, rng: np.random.Generator, turns: int, *, told: str | None = None, describe: bool = True
) -> list[Span]:
    """A dialogue in the v1 template about a scene told in words (or as ``told``).

    One in five opens with a request to describe the scene, unless ``describe`` is false.
    """
    pairs = questions_and_answers(scene, rng, turns)
    if rng.random() < 0.2 and describe:
        whole = caption(scene, rng, size=True, place=True, count=bool(rng.integers(2)), shuffled=False)
        pairs[0] = (DESCRIBE[int(rng.integers(len(DESCRIBE)))], whole)
    spans: list[Span] = []
    opening = f"{SYSTEM} USER: {told or tell(scene, rng)}\n"
    for question, answer in pairs:
        spans.append(Span(f"{opening}{question} ASSISTANT:", False))
        spans.append(Span(f" {answer}</s>", True))
        opening = "USER: "
    return spans


def captions_of_one_scene(scene: Scene, rng: np.random.Generator) -> list[Span]:
    """A scene told in words, then two of its captions, a line each: the ``plain`` template's text."""
    told = five_captions(scene, rng)
    return [Span(f"{tell(scene, rng)}\n", False), Span(f"{told[0]}\n", True), Span(f"{told[1]}\n", True)]


def _scene(rng: np.random.Generator, forbidden: Collection[Signature]) -> Scene:
    while (scene := sample_scene(rng)).signature in forbidden:
        pass
    return scene


def document(rng: np.random.Generator, forbidden: Collection[Signature] = (), turns: int = 8) -> list[Span]:
    """Draw a document about a scene that is none of the ``forbidden`` ones: a dialogue, or one in six captions."""
    scene = _scene(rng, forbidden)
    return captions_of_one_scene(scene, rng) if rng.random() < 1 / 6 else dialogue(scene, rng, turns)


def blended_document(
    rng: np.random.Generator, forbidden: Collection[Signature] = (), turns: int = 8
) -> tuple[list[Span], list[str]]:
    """Draw a document whose scene is told blended, and the words of its positions (``BLEND`` in the text)."""
    scene = _scene(rng, forbidden)
    words = blends(scene, rng)
    told = BLEND * len(words)
    if rng.random() < 1 / 6:
        line = five_captions(scene, rng)[0]
        return [Span(told, False), Span(f"{line}\n", True)], words
    return dialogue(scene, rng, turns, told=told), words
