"""The gates on 300 replies written by someone who had not read them; half of them was kept aside until the end.

`python -m tests.expansion.gates.test_reply_set` prints the table of docs/data.md.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from llava.expansion.gates import Panel, Sample
from llava.expansion.recipe.grammar import GrammarError
from llava.expansion.recipe.kinds import KindRecipe, load_expansion_recipe
from llava.expansion.sources.corpus import AnnotatedImage, Box
from llava.expansion.teachers.words import COCO

FOLDER = Path(__file__).parent
HALVES = ("working", "aside")
CHATTER = ("```", "Sure!", "Below is")
"""Fences and greetings are taken off by the reader of replies; what is left is a good row."""


@cache
def images() -> dict[str, AnnotatedImage]:
    found = {}
    for number, (name, data) in enumerate(yaml.safe_load((FOLDER / "reply_set_images.yaml").read_text()).items(), 1):
        boxes = tuple(Box(*box) for box in data["boxes"])
        width, height = data["size"]
        found[name] = AnnotatedImage(f"{number:012d}.jpg", number, width, height, tuple(data["captions"]), boxes)
    return found


@cache
def kind(name: str) -> KindRecipe:
    found = load_expansion_recipe("coco").kind(name)
    return found.model_copy(update={"grammar": found.grammar.model_copy(update={"min_turns": 1})})


def replies(half: str) -> dict[str, list[tuple[str, str, Any]]]:
    """class -> (image, kind, reply)."""
    return yaml.safe_load((FOLDER / f"reply_set_{half}.yaml").read_text())  # type: ignore[no-any-return]


def verdict(panel: Panel, name: str, kind_name: str, reply: str | list[str]) -> str:
    """`gate: reason` of what drops the reply, `read` where its chatter was taken off; empty where a row comes of it."""
    recipe = kind(kind_name)
    text = reply if isinstance(reply, str) else recipe.grammar.format(list(zip(reply[::2], reply[1::2], strict=True)))
    try:
        pairs = recipe.grammar.parse(text)
    except GrammarError as error:
        return f"grammar: {error}"
    found = panel.judge(Sample(recipe, images()[name], text, "stop", pairs))
    reason = next((f"{one.gate}: {one.reason}" for one in found if one.hard), "")
    row = "\n".join(part for pair in pairs for part in pair)
    return reason or ("read" if any(word in text and word not in row for word in CHATTER) else "")


def panel() -> Panel:
    # Replies stand alone here: what repeats another row is none of this set's business.
    return Panel(load_expansion_recipe("coco"), COCO, blocked=frozenset(), off={"duplicates", "balance"})


def measure(half: str) -> dict[str, tuple[int, int]]:
    """class -> (replies, of them dropped or put right)."""
    gates = panel()
    return {
        label: (len(rows), sum(bool(verdict(gates, *row)) for row in rows)) for label, rows in replies(half).items()
    }


def test_the_set_is_what_it_says() -> None:
    halves = [replies(half) for half in HALVES]
    assert sum(len(rows) for half in halves for rows in half.values()) == 300
    assert halves[0].keys() == halves[1].keys()
    texts = [str(row) for half in halves for rows in half.values() for row in rows]
    assert len(set(texts)) == 300


@pytest.mark.slow
def test_no_more_than_two_percent_of_good_replies_are_dropped() -> None:
    for half in HALVES:
        total, wrong = measure(half)["good"]
        assert wrong <= 0.02 * total


def test_the_docs_say_what_is_caught() -> None:
    docs = (FOLDER.parents[2] / "docs" / "data.md").read_text().split("reply_set_working.yaml")[1]
    working, aside = (measure(half) for half in HALVES)
    for label in working:
        (total, caught), (total_aside, caught_aside) = working[label], aside[label]
        line = rf"\| {label} \|[^|]*\| {caught} of {total} \|[^|]*\| {caught_aside} of {total_aside} \|"
        assert re.search(line, docs), (label, working[label], aside[label])
    bad = [caught for half in (working, aside) for label, (_, caught) in half.items() if label != "good"]
    assert f"So {sum(bad)} of 180 bad replies" in docs and sum(bad) >= 0.9 * 180


if __name__ == "__main__":
    working, aside = (measure(half) for half in HALVES)
    for label, (total, caught) in working.items():
        print(f"| {label} | {caught} of {total} | {aside[label][1]} of {aside[label][0]} |")
