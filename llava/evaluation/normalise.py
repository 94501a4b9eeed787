"""Plain text comparisons shared by benchmarks."""

from __future__ import annotations

import re
import string

from llava.written_numbers import NUMBER_WORDS

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBERS = {word: str(number) for number, word in enumerate(NUMBER_WORDS[:11])}
_NO_PUNCTUATION = str.maketrans(string.punctuation, " " * len(string.punctuation))


def exact(text: str) -> str:
    """Lower case, without surrounding blanks and all final periods: what the original compares GQA answers by."""
    return text.strip().rstrip(".").lower()


def lenient(text: str) -> str:
    """Also without articles, punctuation and case, numbers as digits: what a person would call the same answer."""
    words = _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()
    return " ".join(_NUMBERS.get(word, word) for word in words)
