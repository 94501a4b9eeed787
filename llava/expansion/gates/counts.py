"""Counts: numbers of things checked against the numbers of boxes."""

from __future__ import annotations

import re
from collections import Counter

from llava.expansion.english import number_of
from llava.expansion.gates.base import Sample
from llava.expansion.gates.nouns import NounFinder
from llava.written_numbers import NUMBER_WORDS

_NUMBER = rf"(?:{'|'.join(NUMBER_WORDS[1:])}|\d{{1,3}})"
_BEFORE = re.compile(rf"\b({_NUMBER}) ((?:[a-z]+(?:-[a-z]+)*,? ){{0,3}})$", re.IGNORECASE)
_OTHER = re.compile(r"\b(?:of|or|and|to|on|in|at|by|with|from|near|for|behind|under|inside|into|over)\b", re.IGNORECASE)
_NEAR = 80  # characters before a thing in which its number is looked for
_HOW_MANY = re.compile(r"^how many (.+?)(?: (?:are|is|do|does|can|could)\b.*)?\??$", re.IGNORECASE)
_COLLECTION = r"(?:an? )?(?:\w+ )?(?:group|herd|flock|team|crowd|row|bunch|set|total|family|line|pack|stack|pile) of "
_LEADING = re.compile(
    rf"^(?:there (?:are|is) |(?:exactly|about|i (?:can )?(?:see|count)) |it(?:['’]s"
    rf"| is) )?(?:{_COLLECTION})?({_NUMBER}|no)\b",
    re.IGNORECASE,
)
_TOTAL = re.compile(r"^ (?:in|visible in|shown in) (?:the|this) (?:image|picture|photo|photograph|scene)\b|^ ?[.!]|^$")
_ONLY = re.compile(
    rf"\b(?:only|just|merely|exactly|precisely|no more than|a total of|consists? of|altogether) "
    rf"(?:only |just |merely |exactly )?{_NUMBER} $",
    re.IGNORECASE,
)
_THERE_ARE = re.compile(rf"\bthere (?:are|is) (?:exactly |a total of )?(?:{_NUMBER}) $", re.IGNORECASE)
_GROUPS = {"pair": "two", "trio": "three", "quartet": "four", "half a dozen": "six", "dozen": "twelve"}
_GROUP = re.compile(
    r"\b(?:an? |the )?(pair|trio|quartet|half a dozen|dozen)(?: of (?:the )?|(?<=dozen) )"
    r"(?!scissors|skis|glasses|sunglasses|goggles|shoes|gloves|pants|jeans|shorts|socks|boots|skates|binoculars|headphones)",
    re.IGNORECASE,
)
_EVERYWHERE = frozenset(
    f"{start}{end}".strip()
    for start in ("", "there ", "visible ", "shown ", "you see ")
    for end in ("", "in the picture", "in the image", "in the photo", "in this picture", "in this image")
)


class CountGate:
    """Numbers of things against the numbers of boxes; a number that a caption states is believed, too."""

    name = "counts"

    def __init__(self, finder: NounFinder | None) -> None:
        self._finder = finder

    def check(self, sample: Sample) -> str:
        """The first wrong number."""
        if self._finder is None or not sample.image.boxes:
            return ""
        boxes = sample.image.boxes
        counts = Counter(box.category for box in boxes)
        crowds = {box.category for box in boxes if box.crowd}
        captions = " ".join(sample.image.captions).lower()
        for question, answer in ((question, _spelled(answer)) for question, answer in sample.pairs):
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
            before = _BEFORE.search(answer, max(0, mention.start - _NEAR), mention.start)
            if mention.doubtful or not before or len(mention.categories) != 1 or not mention.many:
                continue
            number = number_of(before.group(1))
            if number is None or _OTHER.search(before.group(2)) or self._finder.find(before.group(2)):
                continue  # the number belongs to something in between
            there_are = _THERE_ARE.search(answer, max(0, mention.start - _NEAR), mention.start)
            total = there_are and _TOTAL.match(answer[mention.end :])
            only = _ONLY.search(answer, max(0, mention.start - _NEAR), mention.start)
            exact = bool(total or only) and mention.general
            claims.append((mention.word, next(iter(mention.categories)), number, exact))
        return claims


def _spelled(answer: str) -> str:
    """`a pair of cats` -> `two cats`; pairs that are one thing stay."""
    if " of " not in answer and "ozen" not in answer:
        return answer
    return _GROUP.sub(lambda match: _GROUPS[match.group(1).lower()] + " ", answer)


def _asks_for_all(question: str) -> bool:
    rest = re.sub(r"^how many .+? (?:are|is|do|can)\b", "", question.lower()).strip(" ?")
    return rest in _EVERYWHERE


def _stated(number: int, word: str, captions: str) -> bool:
    forms = {str(number), NUMBER_WORDS[number] if number < len(NUMBER_WORDS) else str(number)}
    return any(re.search(rf"\b{form} (?:\w+ )?{re.escape(word)}\b", captions) for form in forms)
