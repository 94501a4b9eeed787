"""Repetition: a reply that goes round in circles."""

from __future__ import annotations

import re
from collections import Counter

from llava.expansion.gates.base import Sample

_RUN = 5


class RepetitionGate:
    """Sentences said twice or more, runs of words again and again, one question asked twice."""

    name = "repetition"

    def check(self, sample: Sample) -> str:
        """What is repeated."""
        questions = Counter(_plain(question) for question, _ in sample.pairs if question)
        twice = next((question for question, number in questions.items() if number > 1), "")
        if twice:
            return f"asks twice: {twice[:60]!r}"
        sentences = Counter(
            plain for part in re.split(r"[.!?\n]+", sample.answers) if len((plain := _plain(part)).split()) >= 4
        )
        for sentence, number in sentences.items():
            if number >= 3 or (number == 2 and len(sentence.split()) >= 6):
                return f"says {number} times: {sentence[:60]!r}"
        for answer in (answer for _, answer in sample.pairs):
            words = _plain(answer).split()
            runs = Counter(tuple(words[k : k + _RUN]) for k in range(len(words) - _RUN + 1))
            if runs and (most := runs.most_common(1)[0])[1] >= 4:
                return f"repeats {most[1]} times: {' '.join(most[0])!r}"
            if re.search(r"\b(\w+)(?: \1){2,}\b", _plain(answer)):
                return "one word three times in a row"
        return ""


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
