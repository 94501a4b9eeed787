"""Find mentions of annotated categories in text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llava.expansion.english import plural

_NEGATION = re.compile(
    r"\b(?:no|not|without|neither|nor|never|none|nothing|cannot|absent|missing|lacks?|instead of|rather than|unlike"
    r"|if|would|could|might|may)\b|n't\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[.;:!?\n]|, (?:but|and|while|with|so|there)\b|\bbut\b")


@dataclass(frozen=True, slots=True)
class Mention:
    """A category word in a text.

    Attributes:
        categories: what the word may mean; usually one.
        word: as found, lower case.
        doubtful: in a clause that denies or only supposes it.
        general: the word is a category's own name, not a narrower word (`people`, not `women`).
    """

    categories: frozenset[str]
    word: str
    start: int
    end: int
    doubtful: bool
    general: bool
    many: bool


class NounFinder:
    """Category words in running text, longest first, so that `hot dog` is no dog.

    Args:
        categories: names as the annotations have them.
        synonyms: category -> further words; categories that are not annotated are ignored.
        ambiguous: category words that are never counted.
        phrases: phrases in which a category word means something else (`train station`).
    """

    def __init__(
        self,
        categories: Iterable[str],
        synonyms: Mapping[str, Sequence[str]],
        ambiguous: Iterable[str],
        phrases: Iterable[str],
    ) -> None:
        self._meaning: dict[str, set[str]] = {}
        self._general: set[str] = set()
        self._plural: set[str] = set()
        for category in categories:
            for word in (category, *synonyms.get(category, ())):
                for form in (word, plural(word)):
                    self._meaning.setdefault(form, set()).add(category)
                    if word == category:
                        self._general.add(form)
                self._plural.add(plural(word))
        skipped = {*ambiguous, *(plural(word) for word in ambiguous), *phrases}
        for phrase in skipped:
            self._meaning[phrase] = set()
        words = sorted(self._meaning, key=lambda word: (-len(word), word))
        self._pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, words))})(?![\w-])", re.IGNORECASE)

    def find(self, text: str) -> list[Mention]:
        """Every mention, in order."""
        found = []
        for match in self._pattern.finditer(text):
            word = match.group().lower()
            meaning = self._meaning[word]
            if meaning:
                found.append(
                    Mention(
                        frozenset(meaning),
                        word,
                        match.start(),
                        match.end(),
                        _doubtful(text, match.start()),
                        word in self._general,
                        word in self._plural,
                    )  # fmt: skip
                )
        return found

    def categories(self, text: str) -> set[str]:
        """All categories that words of the text may mean."""
        return {category for mention in self.find(text) for category in mention.categories}


def _doubtful(text: str, start: int) -> bool:
    clause_start = 0
    for match in _CLAUSE.finditer(text, 0, start):
        clause_start = match.end()
    return _NEGATION.search(text, clause_start, start) is not None
