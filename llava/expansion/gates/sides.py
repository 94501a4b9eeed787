"""Places: left, right, above and below checked against the boxes."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from itertools import pairwise, zip_longest

from llava.expansion.gates.base import Sample
from llava.expansion.gates.nouns import Mention, NounFinder
from llava.expansion.sources.corpus import Box
from llava.written_numbers import NUMBER_WORDS

_RELATION = re.compile(
    r"^(?: \w+){0,3}? (?:(?:to|on) the (left|right)(?: side| hand side)? of|(above|below|beneath|underneath|under)) "
    r"(?:the |a |an )?(?:\w+ ){0,2}?$",
    re.IGNORECASE,
)
# What a side may be of, so that it is the image's: not of a bed, a road or a person.
_VIEW = (
    "image|picture|photo|photograph|scene|frame|view|shot|room|kitchen|bathroom|bedroom|living room|dining room|office"
)
_PART = (
    r"(?:(?:on|at|to|toward|towards) the (?:far )?(?P<side>left|right)(?:(?:[- ]hand)? side| part| edge| half)?"
    r"|(?:in|at|near) the (?:far )?(?:(?:upper|lower|top|bottom)[ -])?(?P<area>left|right)(?:[- ]hand)? "
    rf"(?:corner|part|half|side))(?: of the (?:{_VIEW}))?"
)
_SIDE = re.compile(
    r"(?: \w+){0,3}? (?:is|are|stands?|sits?|can be seen|lies?|appears?|positioned|located|placed|standing|sitting)?"
    rf"(?: \w+){{0,2}}? ?{_PART}"
    # A bare `left` before another noun belongs to that noun (`on the left shelf`).
    r"(?=[.,;:!)]| (?:and|is|are|was|were|has|have|who|which|that|while|with|wears?|holds?|carr(?:y|ies)|looks?|shows?"
    r"|seems?|appears?|watch(?:es)?)\b|$)",
    re.IGNORECASE,
)
# `On the left, there is a dog`. `To the right, ...` may be to the right of what was said before.
_FIRST_SIDE = re.compile(
    rf"^(?!to\b|towards?\b){_PART}(?! of\b),? "
    r"(?:(?:there )?(?:is|are|stands?|sits?|lies?) |(?:one|you|we) (?:can )?sees? )?"
    rf"(?:an?|the|some|several|{'|'.join(NUMBER_WORDS[1:])}) (?:\w+ )?$",
    re.IGNORECASE,
)
_WHERE = re.compile(
    r"^where(?:['’]s| is| are) (?:the |an? )?(?P<thing>[\w -]+?)(?: (?:located|placed|standing|lying))?\?", re.I
)
_PRONOUN = re.compile(
    r"^(?:(?:it|they|he|she)(?:['’]s| is|['’]re| are| stands?| lies?| sits?) |(?P<start>(?:to"
    r"|on) the (?:left|right)\b))",
    re.I,
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
_CLEAR = 0.03  # of the image's side: centres nearer than this contradict nobody
_MIDDLE = 0.1


class SideGate:
    """Left, right, above and below against the centres of boxes.

    How two things stand to one another is checked where each has a single box; a side of the image contradicts only
    when every box of that category is off it.
    """

    name = "sides"

    def __init__(self, finder: NounFinder | None) -> None:
        self._finder = finder

    def check(self, sample: Sample) -> str:
        """The first wrong place."""
        image = sample.image
        if self._finder is None or not image.boxes or not image.width:
            return ""
        boxes = _by_category(image.boxes)
        single = {category: found[0] for category, found in boxes.items() if len(found) == 1}
        size = (image.width, image.height)
        for question, answer in ((question, _named(question, answer)) for question, answer in sample.pairs):
            wrong = self._relations(answer, single, size)
            wrong = wrong or self._sides(answer, boxes, size) or self._where(question, answer, boxes, size)
            if not wrong and _IS_RELATION.match(question):
                wrong = self._yes_no(question, answer, single, size)
            if wrong:
                return wrong
        return ""

    def _relations(self, text: str, single: dict[str, Box], size: tuple[int, int]) -> str:
        for sentence in _sentences(text):
            for first, second in pairwise(self._one_of_each(sentence, single)):
                match = _RELATION.match(sentence[first.end : second.start])
                if match and not _holds(match, _box(first, single), _box(second, single), size):
                    word = match.group(1) or match.group(2)
                    return f"{first.word!r} is not {word} of {second.word!r}"
        return ""

    def _sides(self, text: str, boxes: dict[str, list[Box]], size: tuple[int, int]) -> str:
        assert self._finder is not None
        for sentence in _sentences(text):
            mentions = self._finder.find(sentence)
            for mention, following in zip_longest(mentions, mentions[1:]):
                match = _SIDE.match(sentence, mention.end)
                if match and following and following.start < match.end():
                    continue  # with another thing in between, that one stands there
                match = match or _FIRST_SIDE.match(sentence, 0, mention.start)
                side = (match["side"] or match["area"]) if match else ""
                if side and _sure(mention, boxes) and _off_side(side, boxes[_category(mention)], size):
                    return f"{mention.word!r} is not on the {side}"
        return ""

    def _where(self, question: str, answer: str, boxes: dict[str, list[Box]], size: tuple[int, int]) -> str:
        assert self._finder is not None
        if not question.lower().startswith(("where is ", "where are ")) or len(answer.split()) > 8:
            return ""
        mentions = [mention for mention in self._finder.find(question) if _sure(mention, boxes)]
        side = re.search(r"\b(left|right)\b(?! of)", answer, re.IGNORECASE)
        if len(mentions) == 1 and side and _off_side(side.group(1), boxes[_category(mentions[0])], size):
            return f"{mentions[0].word!r} is not on the {side.group(1)}"
        return ""

    def _yes_no(self, question: str, answer: str, single: dict[str, Box], size: tuple[int, int]) -> str:
        said = re.match(r"^(yes|no)\b", answer, re.IGNORECASE)
        mentions = self._one_of_each(question, single)
        if not said or len(mentions) != 2:
            return ""
        match = _RELATION.match(question[mentions[0].end : mentions[1].start])
        if not match:
            return ""
        first, second = _box(mentions[0], single), _box(mentions[1], single)
        if abs(_distance(match, first, second, size)) < _CLEAR:
            return ""
        holds = _holds(match, first, second, size)
        if holds != (said.group(1).lower() == "yes"):
            return f"answers {said.group(1)!r} to {question!r}"
        return ""

    def _one_of_each(self, text: str, single: dict[str, Box]) -> list[Mention]:
        assert self._finder is not None
        return [mention for mention in self._finder.find(text) if _sure(mention, single) and not mention.many]


def _named(question: str, answer: str) -> str:
    """`Where is the mug?` - `It's left of the plate.` says that the mug is left of the plate."""
    asked = _WHERE.match(question)
    if not asked:
        return answer
    return _PRONOUN.sub(lambda match: f"The {asked['thing']} is {match['start'] or ''}", answer, count=1)


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?;])\s|\n", text)


def _by_category(boxes: tuple[Box, ...]) -> dict[str, list[Box]]:
    crowds = {box.category for box in boxes if box.crowd}
    found: dict[str, list[Box]] = {}
    for box in boxes:
        if box.category not in crowds:
            found.setdefault(box.category, []).append(box)
    return found


def _sure(mention: Mention, boxes: Container[str]) -> bool:
    return len(mention.categories) == 1 and not mention.doubtful and _category(mention) in boxes


def _category(mention: Mention) -> str:
    return next(iter(mention.categories))


def _box(mention: Mention, single: dict[str, Box]) -> Box:
    return single[_category(mention)]


def _distance(match: re.Match[str], first: Box, second: Box, size: tuple[int, int]) -> float:
    axis, _ = _AXIS[(match.group(1) or match.group(2)).lower()]
    return (first.centre[axis] - second.centre[axis]) / size[axis]


def _holds(match: re.Match[str], first: Box, second: Box, size: tuple[int, int]) -> bool:
    _, sign = _AXIS[(match.group(1) or match.group(2)).lower()]
    distance = _distance(match, first, second, size)
    return abs(distance) < _CLEAR or distance * sign > 0


def _off_side(side: str, boxes: Sequence[Box], size: tuple[int, int]) -> bool:
    places = [box.centre[0] / size[0] for box in boxes]
    return min(places) > 0.5 + _MIDDLE if side.lower() == "left" else max(places) < 0.5 - _MIDDLE
