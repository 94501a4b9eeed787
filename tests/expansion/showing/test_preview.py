"""The preview in the report: every kind, kept and dropped side by side, boxes, filters, nothing from outside."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from llava.expansion.asking.entries import Entry
from llava.expansion.gates import Finding
from llava.expansion.recipe.kinds import load_expansion_recipe
from llava.expansion.recipe.requests import all_requests
from llava.expansion.rows.assembly import Result
from llava.expansion.rows.row import Row
from llava.expansion.rows.sampling import Sampler
from llava.expansion.showing.preview import preview_cards
from llava.expansion.sources.corpus import AnnotatedImage, Box
from llava.expansion.teachers.base import Usage
from llava.stages.expand import STAGE, Inputs, Outputs
from llava.stages.expand_settings import Settings

KIND = load_expansion_recipe("coco").kinds["detail"]


def result(number: int, gate: str = "", text: str = "A dog.") -> Result:
    image = AnnotatedImage(f"train2017/{number}.jpg", number, 64, 48, (f"a dog {number}",), (Box("dog", 1, 2, 30, 20),))
    (request,) = all_requests([KIND], "m", [image], 0)
    entry = Entry(request.id, 1, "answered", "", text, "stop", "m", Usage(1, 0, 1), 0.0, "detail")
    row = None if gate else Row(f"{number}", image.path, "detail", (("<image>\nDescribe it.", text),))
    return Result(request, entry, row, [Finding(gate, "why")] if gate else [Finding("grounding", "maybe", False)])


def test_kept_and_dropped_stand_side_by_side() -> None:
    sampler = Sampler(3)
    for number in range(20):
        sampler.see(result(number, ("", "leakage", "refusal", "")[number % 4]))
    cards = preview_cards(sampler.results(), [], [], "")
    # Three of each group: the first three pairs hold one of each, the dropped ones that remain follow.
    assert [card.tone for card in cards] == ["good", "bad"] * 3 + ["bad"] * 3
    assert Counter(card.tags["gate"] for card in cards) == {"passed all": 3, "leakage": 3, "refusal": 3}
    kept, dropped = cards[0], cards[1]
    assert "Q: Describe it." in kept.lines and "flag grounding: maybe" in kept.lines
    assert "dropped by leakage: why" in dropped.lines and "A dog." in dropped.lines
    assert [(box.x, box.width, box.label) for box in kept.boxes] == [(1, 30, "dog")]


def test_a_hostile_reply_stays_short(tmp_path: Path) -> None:
    (card,) = preview_cards(
        [(("detail", "repetition"), result(1, "repetition", "a\n" * 50_000))], [], [], str(tmp_path)
    )
    assert len(card.lines) < 320 and sum(map(len, card.lines)) < 1000 and "(image not found)" in card.lines


@pytest.mark.slow
def test_the_report_of_a_run_shows_every_kind_and_can_be_filtered(world: Path, tmp_path: Path) -> None:
    # An image twice: its second row is dropped as a duplicate, so that there is something of both sorts.
    captions = json.loads((world / "annotations/captions_train2017.json").read_text())
    boxes = json.loads((world / "annotations/instances_train2017.json").read_text())
    first = captions["images"][0]
    copy = {**first, "id": 999_999}
    for data in (captions, boxes):
        data["images"].append(copy)
        data["annotations"] += [
            {**row, "image_id": copy["id"], "id": 10**9 + k}
            for k, row in enumerate(data["annotations"])
            if row["image_id"] == first["id"]
        ]
    for name, data in (("captions", captions), ("instances", boxes)):
        (tmp_path / f"{name}_train2017.json").write_text(json.dumps(data))
    names = {"pretrain_data": "p.json", "instruct_data": "i.json", "report": "r.html", "metrics": "m"}
    outputs = Outputs(**{name: str(tmp_path / "out" / file) for name, file in names.items()})
    settings = Settings(
        annotations_uri=str(tmp_path), images_uri=str(world), image_prefix="train2017",
        kinds="naive,region,conversation,detail,reasoning", preview_rows=4,
    )  # fmt: skip
    STAGE.run(settings, Inputs(), outputs)
    page = (tmp_path / "out/r.html").read_text()
    choices = dict(re.findall(r'id="(g\d+-\d+-\w+)"[^>]*><span>([^<]+)</span>', page))
    assert {
        "naive",
        "region",
        "conversation",
        "detail",
        "reasoning",
        "kept",
        "dropped",
        "passed all",
        "duplicates",
    } <= (set(choices.values()))
    cards = re.findall(r'<div class="card (good|bad) ([^"]+)">(.*?)</div></div>', page, re.DOTALL)
    assert len(cards) > 20 and {tone for tone, _, _ in cards} == {"good", "bad"}
    assert all("<rect " in body and 'src="data:image/' in body for _, _, body in cards)
    # Each choice hides by a rule of its own all cards without its class, and some card has that class.
    classes = {name for _, found, _ in cards for name in found.split()}
    for choice, text in choices.items():
        group, _, rest = choice.partition("-")
        if text != "all":
            assert f"#{group}:has(#{choice}:checked) .card:not(.t{rest}){{display:none}}" in page
            assert f"t{rest}" in classes, text
    assert not re.search(r'(?:src|href)="(?!data:|#)', page) and "<script" not in page
