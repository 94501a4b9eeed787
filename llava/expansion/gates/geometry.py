"""Counts, and left / right / above / below, checked against the boxes."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

from llava.expansion.english import NUMBERS, number_of
from llava.expansion.gates.base import Sample
from llava.expansion.nouns import Mention, NounFinder
from llava.expansion.pictures import Box

_NUMBER = rf"(?:{'|'.join(NUMBERS[1:])}|\d{{1,3}})"
_BEFORE = re.compile(rf"\b({_NUMBER}) ((?:[a-z]+,? ){{0,2}})$", re.IGNORECASE)
_HOW_MANY = re.compile(r"^how many (.+?)(?: (?:are|is|do|does|can|could)\b.*)?\??$", re.IGNORECASE)
_LEADING = re.compile(rf"^(?:there (?:are|is) |(?:exactly|about|i (?:can )?see) )?({_NUMBER}|no)\b", re.IGNORECASE)
_TOTAL = re.compile(r"^ (?:in|visible in|shown in) (?:the|this) (?:image|picture|photo|photograph|scene)\b|^ ?[.!]|^$")
_THERE_ARE = re.compile(rf"\bthere (?:are|is) (?:exactly |a total of )?(?:{_NUMBER}) $", re.IGNORECASE)
_RELATION = re.compile(
    r"^(?: \w+){0,3}? (?:(?:to|on) the (left|right)(?: side| hand side)? of|(above|below|beneath|underneath|under)) "
    r"(?:the |a |an )?(?:\w+ ){0,2}?$",
    re.IGNORECASE,
)
_SIDE = re.compile(
    r"^(?: \w+){0,3}? (?:is|are|stands|sits|can be seen|lies|appears|positioned|located|placed|standing|sitting)?"
    r"(?: \w+){0,2}? ?(?:on|at|to|toward|towards) the (?:far )?(left|right)(?: side| part| edge| half)?"
    r"(?: of the (?:image|picture|photo|scene|frame))?(?=[.,;!]| and\b|$)",
    re.IGNORECASE,
)
_IS_RELATION = re.compile(r"^(?:is|are) ", re.IGNORECASE)
_AXIS = {
    "left": (0, -1),
    "right": (0, 1),
    "above": (1, -1),
    "below": (1, 1),
    "beneath": (1, 1),
    "underneath": (1, 1),
    "under": (1, 1),
}
_EVERYWHERE = frozenset(
    f"{start}{end}".strip()
    for start in ("", "there ", "visible ", "shown ", "you see ")
    for end in ("", "in the picture", "in the image", "in the photo", "in this picture", "in this image")
)
_CLEAR = 0.03  # of the picture's side: centres nearer than this contradict nobody
_MIDDLE = 0.1


class CountGate:
    """Numbers of things against the numbers of boxes; a number that a caption states is believed, too."""

    name = "counts"

    def __init__(self, finder: NounFinder | None) -> None:
        self._finder = finder

    def check(self, sample: Sample) -> str:
        """The first wrong number."""
        if self._finder is None or not sample.picture.boxes:
            return ""
        boxes = sample.picture.boxes
        counts = Counter(box.category for box in boxes)
        crowds = {box.category for box in boxes if box.crowd}
        captions = " ".join(sample.picture.captions).lower()
        for question, answer in sample.pairs:
            for word, category, claimed, exact in self._claims(question, answer):
                real = counts[category]
                if not real or category in crowds or _stated(claimed, word, captions):
                    continue
                if claimed > real or (exact and claimed < real):
                    return f"claims {claimed} {word!r}, boxed are {real}"
        return ""

    def _claims(self, question: str, answer: str) -> list[tuple[str, str, int, bool]]:
        assert self._finder is not None
        claims = []
        asked = _HOW_MANY.match(question)
        leading = _LEADING.match(answer)
        if asked and leading:
            mentions = self._finder.find(asked.group(1))
            number = 0 if leading.group(1).lower() == "no" else number_of(leading.group(1))
            if len(mentions) == 1 and len(mentions[0].categories) == 1 and number is not None:
                plain = asked.group(1).strip().lower() == mentions[0].word
                whole = plain and mentions[0].general and _asks_for_all(question)
                claims.append((mentions[0].word, next(iter(mentions[0].categories)), number, whole))
        for mention in self._finder.find(answer):
            before = _BEFORE.search(answer, 0, mention.start)
            if mention.doubtful or not before or len(mention.categories) != 1 or not mention.many:
                continue
            number = number_of(before.group(1))
            if number is None or re.search(r"\b(?:of|or|and|to)\b", before.group(2)):
                continue
            total = _THERE_ARE.search(answer, 0, mention.start) and _TOTAL.match(answer[mention.end :])
            claims.append((mention.word, next(iter(mention.categories)), number, bool(total) and mention.general))
        return claims


class SideGate:
    """Left, right, above and below against the centres of boxes, where each thing has a single box."""

    name = "sides"

    def __init__(self, finder: NounFinder | None) -> None:
        self._finder = finder

    def check(self, sample: Sample) -> str:
        """The first wrong place."""
        picture = sample.picture
        if self._finder is None or not picture.boxes or not picture.width:
            return ""
        single = _single(picture.boxes)
        size = (picture.width, picture.height)
        for question, answer in sample.pairs:
            wrong = self._relations(answer, single, size) or self._where(question, answer, single, size)
            if not wrong and _IS_RELATION.match(question):
                wrong = self._yes_no(question, answer, single, size)
            if wrong:
                return wrong
        return ""

    def _relations(self, text: str, single: dict[str, Box], size: tuple[int, int]) -> str:
        for sentence in re.split(r"(?<=[.!?;])\s|\n", text):
            mentions = self._sure(sentence, single)
            for first, second in pairwise(mentions):
                match = _RELATION.match(sentence[first.end : second.start])
                if match and not _holds(match, _box(first, single), _box(second, single), size, unclear=True):
                    word = match.group(1) or match.group(2)
                    return f"{first.word!r} is not {word} of {second.word!r}"
            for mention in mentions:
                match = _SIDE.match(sentence[mention.end :])
                if match and _off_side(match.group(1), _box(mention, single), size):
                    return f"{mention.word!r} is not on the {match.group(1)}"
        return ""

    def _where(self, question: str, answer: str, single: dict[str, Box], size: tuple[int, int]) -> str:
        if not question.lower().startswith("where is ") or len(answer.split()) > 8:
            return ""
        mentions = self._sure(question, single)
        side = re.search(r"\b(left|right)\b(?! of)", answer, re.IGNORECASE)
        if len(mentions) == 1 and side and _off_side(side.group(1), _box(mentions[0], single), size):
            return f"{mentions[0].word!r} is not on the {side.group(1)}"
        return ""

    def _yes_no(self, question: str, answer: str, single: dict[str, Box], size: tuple[int, int]) -> str:
        said = re.match(r"^(yes|no)\b", answer, re.IGNORECASE)
        mentions = self._sure(question, single)
        if not said or len(mentions) != 2:
            return ""
        match = _RELATION.match(question[mentions[0].end : mentions[1].start])
        if not match:
            return ""
        first, second = _box(mentions[0], single), _box(mentions[1], single)
        if abs(_distance(match, first, second, size)) < _CLEAR:
            return ""
        holds = _holds(match, first, second, size, unclear=True)
        if holds != (said.group(1).lower() == "yes"):
            return f"answers {said.group(1)!r} to {question!r}"
        return ""

    def _sure(self, text: str, single: dict[str, Box]) -> list[Mention]:
        assert self._finder is not None
        return [
            mention
            for mention in self._finder.find(text)
            if len(mention.categories) == 1 and not mention.many and not mention.doubtful
            and next(iter(mention.categories)) in single
        ]  # fmt: skip


def _single(boxes: tuple[Box, ...]) -> dict[str, Box]:
    counts = Counter(box.category for box in boxes)
    return {box.category: box for box in boxes if counts[box.category] == 1 and not box.crowd}


def _box(mention: Mention, single: dict[str, Box]) -> Box:
    return single[next(iter(mention.categories))]


def _distance(match: re.Match[str], first: Box, second: Box, size: tuple[int, int]) -> float:
    axis, _ = _AXIS[(match.group(1) or match.group(2)).lower()]
    return (first.centre[axis] - second.centre[axis]) / size[axis]


def _holds(match: re.Match[str], first: Box, second: Box, size: tuple[int, int], *, unclear: bool) -> bool:
    _, sign = _AXIS[(match.group(1) or match.group(2)).lower()]
    distance = _distance(match, first, second, size)
    return unclear if abs(distance) < _CLEAR else distance * sign > 0


def _off_side(side: str, box: Box, size: tuple[int, int]) -> bool:
    x = box.centre[0] / size[0]
    return x > 0.5 + _MIDDLE if side.lower() == "left" else x < 0.5 - _MIDDLE


def _asks_for_all(question: str) -> bool:
    rest = re.sub(r"^how many .+? (?:are|is|do|can)\b", "", question.lower()).strip(" ?")
    return rest in _EVERYWHERE


def _stated(number: int, word: str, captions: str) -> bool:
    forms = {str(number), NUMBERS[number] if number < len(NUMBERS) else str(number)}
    return any(re.search(rf"\b{form} (?:\w+ )?{re.escape(word)}\b", captions) for form in forms)
