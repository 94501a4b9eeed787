"""Grounding: what a reply says is there must stand in the boxes or the captions."""

from __future__ import annotations

import re

from llava.expansion.gates.base import Sample
from llava.expansion.gates.nouns import NounFinder

_IS_THERE = re.compile(r"^(?:is|are) there (?:(?:a|an|any|some|one) )?(?:\w+ )?", re.IGNORECASE)
_YES = re.compile(r"^yes\b", re.IGNORECASE)
_NO = re.compile(r"^no\b", re.IGNORECASE)


class GroundingGate:
    """Category words against boxes and captions; inactive without categories."""

    name = "grounding"

    def __init__(self, finder: NounFinder | None) -> None:
        self._finder = finder

    def check(self, sample: Sample) -> str:
        """The first thing said to be there that is not, or said to be absent that is boxed."""
        if self._finder is None:
            return ""
        boxed = {box.category for box in sample.image.boxes}
        captioned: set[str] | None = None  # read only when the boxes do not answer

        def there(categories: frozenset[str]) -> bool:
            nonlocal captioned
            if categories & boxed:
                return True
            if captioned is None:
                assert self._finder is not None
                captioned = self._finder.categories("\n".join(sample.image.captions))
            return bool(categories & captioned)

        for question, answer in sample.pairs:
            for mention in self._finder.find(answer):
                if not mention.doubtful and not there(mention.categories):
                    return f"{mention.word!r} is in no box and no caption"
            asked = self._asked(question)
            if asked and _YES.match(answer) and not there(asked[1]):
                return f"affirms {asked[0]!r}, which is in no box and no caption"
            if asked and _NO.match(answer) and asked[2] and asked[1] & boxed:
                return f"denies {asked[0]!r}, which is boxed"
        return ""

    def _asked(self, question: str) -> tuple[str, frozenset[str], bool] | None:
        """What an is-there question is about: the word, its categories, and whether it asks for nothing narrower."""
        assert self._finder is not None
        start = _IS_THERE.match(question)
        if not start:
            return None
        mentions = self._finder.find(question)
        if not mentions:
            return None
        first = mentions[0]
        before = re.sub(_IS_THERE_WORDS, "", question[: first.start].lower()).strip()
        after = question[first.end :].strip(" ?").lower()
        plain = not before and after in (
            "",
            "in the picture",
            "in the image",
            "in the photo",
            "in this image",
            "visible",
        )
        return first.word, first.categories, plain and first.general


_IS_THERE_WORDS = re.compile(r"^(?:is|are) there|\b(?:a|an|any|some|one)\b")
