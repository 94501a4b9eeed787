"""Rules of single gates that the graded sets do not show: expectations by hand."""

from __future__ import annotations

import pytest

from llava.expansion.gates.base import Sample
from llava.expansion.gates.blocklist import numeric_id
from llava.expansion.gates.personal import PersonalDataGate
from llava.expansion.rows.regions import describe_boxes
from llava.expansion.sources.corpus import AnnotatedImage, Box
from tests.expansion.gates.test_gates import kind, panel, sample


def about(text: str, *boxes: Box) -> Sample:
    shape = kind(text)
    question, answer = text.split(" >> ")
    reply = shape.grammar.format([(question, answer)])
    image = AnnotatedImage("000000000001.jpg", 1, 400, 200, ("A view of a field.",), boxes)
    return Sample(shape, image, reply, "stop", shape.grammar.parse(reply))


@pytest.mark.parametrize(("crowd", "dropped"), [(False, True), (True, False)])
def test_a_box_around_a_crowd_counts_nobody(crowd: bool, dropped: bool) -> None:
    """COCO draws one box around many (`iscrowd`): how many there are, no box says."""
    boxes = (Box("sheep", 10, 10, 300, 100, crowd), Box("dog", 320, 20, 40, 40))
    asked = about("How many sheep are there? >> There are seven sheep.", *boxes)
    assert bool(panel("counts").judge(asked)) == dropped


@pytest.mark.parametrize(("crowd", "dropped"), [(False, True), (True, False)])
def test_a_box_around_a_crowd_is_on_no_side(crowd: bool, dropped: bool) -> None:
    boxes = (Box("cow", 10, 10, 60, 100, crowd), Box("dog", 320, 20, 40, 40))
    asked = about("Where is the cow? >> The cow is to the right of the dog.", *boxes)
    assert bool(panel("sides").judge(asked)) == dropped


def test_a_crowd_gives_no_region_and_hides_its_category() -> None:
    boxes = (Box("sheep", 10, 10, 60, 100, True), Box("dog", 320, 20, 40, 40))
    image = AnnotatedImage("a.jpg", 1, 400, 200, (), boxes)
    assert [phrase for phrase, _ in describe_boxes(image)] == ["the dog"]


@pytest.mark.parametrize(
    ("number", "card"),
    [
        ("4111111111111111", True),  # numbers that card networks publish for tests
        ("5555555555554444", True),
        ("378282246310005", True),
        ("6011111111111117", True),
        ("4111111111111112", False),  # the check digit (Luhn, ISO/IEC 7812-1) is wrong
        ("1234567890123", False),
        ("9780306406157", False),  # an ISBN
        ("411111111111", False),  # too short
    ],
)
def test_only_digits_with_a_check_digit_are_a_card_number(number: str, card: bool) -> None:
    found = PersonalDataGate().check(about(f"What does the sign say? >> It says {number} in red."))
    assert (found == "payment card number") == card, found


def test_a_dropped_row_has_one_reason_and_is_counted_once() -> None:
    gates = panel()
    faulty = sample("cafe", "How did they pay? >> I'm sorry, but I cannot see it. The card is 4111 1111 1111 1111.")
    alone = [name for name in ("refusal", "personal_data") if panel(name).judge(faulty)]
    assert alone == ["refusal", "personal_data"], "it is a case of both"
    findings = gates.judge(faulty)
    assert sum(finding.hard for finding in findings) == 1 and findings[-1].hard
    assert sum(gates.hard.values()) == 1 and gates.seen == 1


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("COCO_val2014_000000000042.jpg", 42),
        ("train2017/000000581929.jpg", 581929),
        ("1000000", 1_000_000),
        ("vg/2417997.jpg", 2_417_997),  # Visual Genome's ids have seven digits
        ("900100581929.jpg", 900_100_581_929),
        ("no digits", None),
    ],
)
def test_ids_of_any_size_are_read(name: str, number: int | None) -> None:
    assert numeric_id(name) == number
