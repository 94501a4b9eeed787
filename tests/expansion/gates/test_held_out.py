"""The gates on replies whose author had not read them: what they catch and drop there, as docs/data.md reports it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from llava.expansion.gates import Panel, Sample
from llava.expansion.recipe.grammar import GrammarError
from llava.expansion.recipe.kinds import load_expansion_recipe
from llava.expansion.sources.corpus import AnnotatedImage, Box
from llava.expansion.teachers.words import COCO

SET = yaml.safe_load((Path(__file__).parent / "held_out_set.yaml").read_text())
GATES = {  # class of the set -> the gate that answers for it
    "grammar": "grammar",
    "truncation": "truncation",
    "refusal": "refusal",
    "leakage": "leakage",
    "coordinates": "coordinates",
    "grounding": "grounding",
    "counts": "counts",
    "sides": "sides",
    "repetition": "repetition",
    "personal": "personal_data",
    "duplicate": "duplicates",
}


@cache
def image(name: str) -> AnnotatedImage:
    data, number = SET["scenes"][name], list(SET["scenes"]).index(name) + 900_001
    boxes = tuple(Box(label, *box) for label, places in data["boxes"].items() for box in places)
    return AnnotatedImage(f"{number:012d}.jpg", number, 640, 480, tuple(data["captions"]), boxes)


def sample(row: dict[str, Any]) -> Sample:
    kind = load_expansion_recipe("coco").kind(row["kind"])
    reply = row["text"] if "text" in row else kind.grammar.format([(q, a) for q, a in row["turns"]])
    finish = row.get("finish", "stop")
    try:
        return Sample(kind, image(row["scene"]), reply, finish, kind.grammar.parse(reply))
    except GrammarError as error:
        return Sample(kind, image(row["scene"]), reply, finish, [], str(error))


def panel(*keep: str) -> Panel:
    found = Panel(load_expansion_recipe("coco"), COCO, blocked=frozenset(), off=set())
    found.gates = [gate for gate in found.gates if not keep or gate.name in keep]
    return found


def dropped(gates: Panel, row: dict[str, Any]) -> str:
    """Gate and reason of a hard finding, or nothing."""
    return next((f"{one.gate}: {one.reason}" for one in gates.judge(sample(row)) if one.hard), "")


def scores() -> list[tuple[str, int, int, int, int]]:
    """(gate, bad replies of its class, caught by it, good replies, of them dropped by it), each gate alone."""
    return [_score("", name) for name in GATES] + [_score("later_", name) for name in ("counts", "sides")]


def _score(part: str, name: str) -> tuple[str, int, int, int, int]:
    gates = panel(GATES[name])
    good = SET[f"{part}good"]
    wrong = sum(bool(dropped(gates, row)) for row in good)  # first: duplicates repeat good ones
    rows = [row for row in SET[f"{part}bad"] if row["class"] == name]
    label = GATES[name] + (", later" if part else "")
    return label, len(rows), sum(bool(dropped(gates, row)) for row in rows), len(good), wrong


def test_the_set_is_large_and_whole() -> None:
    assert len(SET["good"]) + len(SET["bad"]) >= 110
    assert {row["class"] for row in SET["bad"]} == {*GATES, "balance"}
    assert {row["scene"] for row in [*SET["good"], *SET["bad"]]} == set(SET["scenes"])


@pytest.mark.slow
def test_no_good_reply_is_dropped() -> None:
    gates = panel()
    good = [*SET["good"], *SET["later_good"]]
    assert not [(row["scene"], row["kind"], why) for row in good if (why := dropped(gates, row))]


@pytest.mark.slow
def test_the_docs_say_what_the_gates_do_here() -> None:
    docs = (Path(__file__).parents[3] / "docs" / "data.md").read_text().split("held_out_set.yaml")[1]
    for gate, total, caught, good, wrong in scores():
        line = rf"\n\| {gate} \| \d+ of {total} \| {caught} of {total} \| {wrong} of {good} \|\n"
        assert re.search(line, docs), (gate, total, caught, good, wrong)


if __name__ == "__main__":
    for gate, total, caught, good, wrong in scores():
        print(f"| {gate} | {caught} of {total} | {wrong} of {good} |")
