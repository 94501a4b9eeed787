"""Each gate on replies written for it: what it catches of its class, and what it drops of good rows."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llava.errors import DataError, SettingsError
from llava.expansion.gates import Panel, Sample
from llava.expansion.gates.balance import BalanceGate
from llava.expansion.gates.blocklist import read_blocklist
from llava.expansion.gates.duplicates import DuplicateGate
from llava.expansion.gates.nouns import NounFinder
from llava.expansion.recipe.grammar import GrammarError
from llava.expansion.recipe.kinds import ExpansionRecipe, KindRecipe, load_expansion_recipe
from llava.expansion.sources.corpus import AnnotatedImage, Box
from llava.expansion.teachers.words import COCO

SET = yaml.safe_load((Path(__file__).parent / "gate_set.yaml").read_text())
FUZZED = Panel(load_expansion_recipe("coco"), COCO, blocked=frozenset(), off=set())
PER_REPLY = [gate for gate in SET["bad"] if gate != "duplicates"]


@cache
def recipe() -> ExpansionRecipe:
    return load_expansion_recipe("coco")


def image(name: str) -> AnnotatedImage:
    data = SET["pictures"][name]
    width, height = data["size"]
    boxes = tuple(Box(*box) for box in data["boxes"])
    return AnnotatedImage(f"{data['id']:012d}.jpg", data["id"], width, height, tuple(data["captions"]), boxes)


def kind(text: str) -> KindRecipe:
    found = recipe().kind("conversation" if ">>" in text else "detail")
    return found.model_copy(update={"grammar": found.grammar.model_copy(update={"min_turns": 1})})


def sample(name: str, text: str, *, finish: str = "stop", raw: bool = False) -> Sample:
    shape = recipe().kind("conversation") if raw else kind(text)
    if raw:
        shape = shape.model_copy(update={"grammar": shape.grammar.model_copy(update={"min_turns": 1})})
        reply = text
    elif ">>" in text:
        pairs = [tuple(part.strip() for part in turn.split(">>")) for turn in text.split(";;")]
        reply = shape.grammar.format(pairs)  # type: ignore[arg-type]
    else:
        reply = text
    try:
        return Sample(shape, image(name), reply, finish, shape.grammar.parse(reply))
    except GrammarError as error:
        return Sample(shape, image(name), reply, finish, [], str(error))


def panel(*keep: str) -> Panel:
    found = Panel(recipe(), COCO, blocked=frozenset(), off=set())
    found.gates = [gate for gate in found.gates if not keep or gate.name in keep]
    return found


def good() -> list[Sample]:
    return [sample(name, text) for name, texts in SET["good"].items() for text in texts]


def bad(gate: str) -> list[Sample]:
    rows: list[dict[str, Any]] = SET["bad"][gate]
    return [
        sample(row["p"], row["t"] if "t" in row else row["raw"], finish=row.get("finish", "stop"), raw="raw" in row)
        for row in rows
    ]


def scores() -> list[tuple[str, int, float, float, float]]:
    """(gate, replies of its class, recall, precision, share of good rows dropped), a gate that judges ."""
    table = []
    for gate in PER_REPLY:
        gates = panel(gate)
        caught = sum(bool(gates.judge(one)) for one in bad(gate))
        wrong = sum(bool(gates.judge(one)) for one in good())
        total = len(bad(gate))
        table.append((gate, total, caught / total, caught / max(caught + wrong, 1), wrong / len(good())))
    return table


def test_the_set_is_large_enough() -> None:
    assert len(good()) + sum(len(bad(gate)) for gate in SET["bad"]) >= 200
    elsewhere = {"duplicates", "balance", "blocklist", "characters", "markup", "language", "chatter"}  # see reply_set
    assert {*PER_REPLY, *elsewhere} == set(panel().names)
    assert all(len(bad(gate)) >= 9 for gate in PER_REPLY)


@pytest.mark.parametrize("gate", PER_REPLY)
def test_a_gate_catches_its_class_and_leaves_good_rows(gate: str) -> None:
    gates = panel(gate)
    missed = [one.reply for one in bad(gate) if not gates.judge(one)]
    wrong = [(one.reply, found[0].reason) for one in good() if (found := gates.judge(one))]
    assert len(missed) <= 0.05 * len(bad(gate)), missed
    assert len(wrong) <= 0.02 * len(good()), wrong


def test_all_gates_together_drop_at_most_two_percent_of_good_rows() -> None:
    gates = panel()
    wrong = [(one.reply, found[0]) for one in good() if (found := gates.judge(one))]
    assert len(wrong) <= 0.02 * len(good()), wrong


def test_every_bad_reply_is_dropped_by_some_gate() -> None:
    gates = panel()
    for one in good():
        gates.judge(one)
    passed = [(name, one.reply) for name in SET["bad"] for one in bad(name) if not gates.judge(one)]
    assert len(passed) <= 0.02 * sum(len(rows) for rows in SET["bad"].values()), passed


def test_the_docs_say_what_the_gates_do() -> None:
    docs = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    for gate, total, recall, precision, dropped in scores():
        assert f"| {gate} | {total} | {recall:.0%} | {precision:.0%} | {dropped:.1%} |" in docs


def test_exact_duplicates_and_near_ones_are_dropped() -> None:
    gate = DuplicateGate()
    first = good()
    assert not [one.reply for one in first if gate.check(one)]
    assert all(gate.check(one) == "exactly the same row as before" for one in first)
    assert all("nearly" in gate.check(one) for one in bad("duplicates"))


def test_short_rows_may_recur_for_other_images() -> None:
    gate = DuplicateGate()
    assert not any(gate.check(sample(name, "Is there a zebra? >> no")) for name in SET["pictures"])


@pytest.mark.parametrize(("yes_share", "kept_least"), [(0.5, 0.98), (0.9, 0.0), (0.1, 0.0)])
def test_balance_holds_yes_and_no_within_bounds(yes_share: float, kept_least: float) -> None:
    gate = BalanceGate()
    rows = [
        sample("beach", f"Is thing {k} here? >> {'yes' if (k * 37) % 100 < 100 * yes_share else 'no'}")
        for k in range(1000)
    ]
    kept = [one for one in rows if not gate.check(one)]
    said = Counter(one.pairs[0][1] for one in kept)
    assert max(said.values()) <= 0.75 * len(kept) + 10
    assert len(kept) >= kept_least * len(rows)
    # The rarer answer is never the one that is dropped.
    rarer = min(Counter(one.pairs[0][1] for one in rows).items(), key=lambda pair: pair[1])
    assert said[rarer[0]] == rarer[1] or kept_least > 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ids.txt", "101\n000000000105.jpg\n"),
        ("pope.jsonl", '{"image": "COCO_val2014_000000000101.jpg"}\n{"image": "val2014/000000000105.jpg"}\n'),
        ("captions_val2017.json", '{"images": [{"id": 101}, {"id": 105}], "annotations": []}'),
        ("rows.json", '[{"id": "x", "image": "coco/train2017/000000000101.jpg"}, {"image_id": 105}]'),
    ],
)
def test_blocklists_of_every_form(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    blocked = read_blocklist(str(path))
    assert blocked == {101, 105}
    gates = Panel(recipe(), COCO, blocked=blocked, off=set())
    dropped = {one for one in SET["pictures"] if gates.judge(sample(one, "What is it? >> a picture"))}
    assert dropped == {"beach", "field"}


def test_an_empty_blocklist_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("nothing here\n")
    with pytest.raises(DataError, match="no image id found"):
        read_blocklist(str(tmp_path / "list.txt"))


def test_soft_gates_flag_without_dropping() -> None:
    gates = panel()
    one = sample("beach", "What else is there? >> A cat is sitting on the sand.")
    soft = Sample(recipe().kind("reasoning"), one.image, one.reply, "stop", one.pairs)
    findings = gates.judge(soft)
    assert [finding.gate for finding in findings] == ["grounding"] and not findings[0].hard
    assert gates.soft["grounding"] == 1 and not gates.hard


@given(st.text(max_size=300), st.sampled_from([">>", ""]))
def test_no_text_breaks_a_gate(text: str, form: str) -> None:
    gates = FUZZED
    for one in (
        sample("beach", f"{text.replace('>>', '')} {form} {text.replace('>>', '')}"),
        sample("desk", text, raw=True),
    ):
        assert all(finding.reason for finding in gates.judge(one))


@pytest.mark.parametrize(
    "piece", ["a ", "0.1, ", "the the ", "no dog. ", "two dogs of ", "===\n", "1 ", "@a", "(", "\u202e"]
)
@pytest.mark.timeout(120)  # anything quadratic would take far longer
def test_no_gate_hangs_on_a_hostile_length(piece: str) -> None:
    gates = panel()
    gates.judge(sample("beach", f"What is it? >> {piece * (60_000 // len(piece))}"))
    assert gates.seen == 1


def test_an_unknown_gate_to_switch_off_is_an_error() -> None:
    with pytest.raises(SettingsError, match="known gates: blocklist, grammar"):
        Panel(recipe(), COCO, blocked=frozenset(), off={"grammer"})


def test_longer_names_win_over_shorter_ones() -> None:
    finder = NounFinder(COCO, recipe().nouns, recipe().ambiguous, recipe().phrases)
    assert finder.categories("A hot dog at the train station next to a teddy bear.") == {"hot dog", "teddy bear"}
    assert finder.categories("women and puppies") == {"person", "dog"}


if __name__ == "__main__":
    print(json.dumps(scores()))
    for gate, total, recall, precision, dropped in scores():
        print(f"| {gate} | {total} | {recall:.0%} | {precision:.0%} | {dropped:.1%} |")
