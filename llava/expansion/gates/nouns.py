"""Find mentions of annotated categories in text."""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from llava.expansion.english import plural
from llava.written_numbers import NUMBER_WORDS

_NEGATION = re.compile(
    r"\b(?:no|not|without|neither|nor|never|none|nothing|cannot|absent|missing|lacks?|instead of|rather than|unlike"
    r"|if|would|could|might|may)\b|n't\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<![\w-])\w+")
_INSIDE = re.compile(r"[\w-]")
_REPLY = re.compile(r"\s*(?:yes|no),\s", re.IGNORECASE)
_NUMBERED = re.compile(rf"\b(?:{'|'.join(NUMBER_WORDS[2:])}|\d{{1,3}}) $")
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
        ambiguous: category words that often mean something else: they count only as a plural after a number
            (`two remotes`).
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
        # Ambiguous plurals keep their meaning for the case that a number stands before them.
        self._unsure = {plural(word) for word in ambiguous}
        for phrase in (*ambiguous, *(self._unsure - self._meaning.keys()), *phrases):
            self._meaning[phrase] = set()
        # By first word: one dictionary look-up a word is far quicker than one alternation of hundreds of words.
        self._starting: dict[str, list[str]] = {}
        for phrase in sorted(self._meaning, key=lambda phrase: (-len(phrase), phrase)):
            first = _WORD.match(phrase)
            if first:
                self._starting.setdefault(first.group().lower(), []).append(phrase.lower())
        # Three gates read the same answer, and short answers recur. No larger: a cache that holds a small job whole
        # and a large one not at all would make small jobs look cheap.
        self.find = functools.lru_cache(maxsize=1_000)(self._find)

    def _find(self, text: str) -> tuple[Mention, ...]:
        """Every mention, in order."""
        clauses = [0, *(match.end() for match in _CLAUSE.finditer(text))]
        return tuple(
            Mention(
                frozenset(self._meaning[phrase]),
                phrase,
                start,
                stop,
                _doubtful(text, clauses[bisect.bisect_right(clauses, start) - 1], start),
                phrase in self._general,
                phrase in self._plural,
            )
            for phrase, start, stop in self._phrases(text.lower())
        )

    def _phrases(self, lower: str) -> Iterator[tuple[str, int, int]]:
        """(phrase, start, stop) of every phrase that means a category, longest first where several start."""
        end = 0
        for match in _WORD.finditer(lower):
            start = match.start()
            if start < end or match.group() not in self._starting:
                continue
            for phrase in self._starting[match.group()]:
                stop = start + len(phrase)
                if lower.startswith(phrase, start) and not _INSIDE.match(lower, stop):
                    end = stop
                    unsure = phrase in self._unsure and not _NUMBERED.search(lower, max(0, start - 12), start)
                    if self._meaning[phrase] and not unsure:
                        yield phrase, start, stop
                    break

    def categories(self, text: str) -> set[str]:
        """All categories that words of the text may mean."""
        return {category for phrase, _, _ in self._phrases(text.lower()) for category in self._meaning[phrase]}


def _doubtful(text: str, clause_start: int, start: int) -> bool:
    # `No, two cats are ...` denies the question, not the cats.
    reply = _REPLY.match(text, clause_start, start)
    return _NEGATION.search(text, reply.end() if reply else clause_start, start) is not None
