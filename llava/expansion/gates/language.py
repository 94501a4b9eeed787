"""Language: rows are in the language that the recipe, and so the data set's card, names."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from llava.expansion.gates.base import Sample

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_SENTENCE = re.compile(r"(?<=[.!?;。！？])\s+|\n+")
_QUOTED = re.compile(r"[\"“«„][^\"”»“\n]*[\"”»“]")
_WORD = re.compile(r"(?<!\w)[^\W\d_]+(?:['’][^\W\d_]+)?(?!\w)")
_NO_LANGUAGE = "zxx"  # what the identifier calls numbers, codes and the like
_FEW_WORDS = 4  # fewer say too little of their language
_UNLIKELY = 0.05  # of being in the language it should be in
# English sentences of any length hold some of these; where a fifth of the words are, nobody has to be asked.
_ENGLISH = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "but",
        "by",
        "can",
        "for",
        "from",
        "has",
        "have",
        "he",
        "her",
        "his",
        "how",
        "in",
        "is",
        "it",
        "its",
        "no",
        "not",
        "of",
        "on",
        "or",
        "she",
        "that",
        "the",
        "their",
        "there",
        "they",
        "this",
        "to",
        "two",
        "was",
        "what",
        "where",
        "which",
        "who",
        "with",
        "yes",
        "you",
        "one",
        "three",
    ]
)


class LanguageGate:
    """Sentences in another language; quoted words and names are nobody's language.

    Args:
        language: ISO 639-1 code.
    """

    name = "language"

    def __init__(self, language: str) -> None:
        self._language = language

    def check(self, sample: Sample) -> str:
        """The first sentence in another language, and which."""
        for part in (part for pair in sample.pairs for part in pair):
            for sentence in _SENTENCE.split(_QUOTED.sub(" ", part) if '"' in part or "“" in part else part):
                other = self._other(sentence)
                if other:
                    return f"{other}: {sentence.strip()[:60]!r}"
        return ""

    def _other(self, sentence: str) -> str:
        words = _WORD.findall(sentence)
        if not words:
            return ""
        letters = "".join(words)
        latin = 1.0 if sentence.isascii() else sum(character < "\u0250" for character in letters) / len(letters)
        if self._language == "en":
            if latin < 0.5:
                return "another script"
            plain = sum(word.lower() in _ENGLISH for word in words)
            if len(words) < _FEW_WORDS or plain >= 0.2 * len(words):
                return ""
        elif len(words) < _FEW_WORDS and len(letters) < 12:
            return ""
        ranked = _identifier().rank(sentence)
        likely = dict(ranked).get(self._language, 0.0)
        return str(ranked[0][0]) if likely < _UNLIKELY and ranked[0][0] != _NO_LANGUAGE else ""


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
