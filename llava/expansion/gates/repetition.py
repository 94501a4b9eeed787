"""Repetition: a reply that goes round in circles."""

from __future__ import annotations

import re
from collections import Counter

from llava.expansion.gates.base import Sample

_RUN = 5
_LONG = 30  # words from which an answer may be asked to vary
_VARIED = 0.4  # different words among those of a long answer
_SAME_ANSWERS = 3
_LONG_PIECE = 12  # a piece without blanks this long may be one character again and again
_MARKS = re.compile(r"([!?.,;:_=-])\1{7,}|(\w)\2{7,}")
_SMALL = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "for",
        "from",
        "has",
        "have",
        "he",
        "her",
        "his",
        "i",
        "in",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "she",
        "that",
        "the",
        "their",
        "they",
        "this",
        "to",
        "was",
        "were",
        "with",
        "there",
        "one",
    ]
)


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
        near = _near_sentences(list(sentences))
        if near:
            return near
        for sentence, number in sentences.items():
            if number >= 3 or (number == 2 and len(sentence.split()) >= 6):
                return f"says {number} times: {sentence[:60]!r}"
        for answer in (answer for _, answer in sample.pairs):
            words = _plain(answer).split()
            runs = Counter(tuple(words[k : k + _RUN]) for k in range(len(words) - _RUN + 1))
            if runs and (most := runs.most_common(1)[0])[1] >= 4:
                return f"repeats {most[1]} times: {' '.join(most[0])!r}"
            if any(a == b == c for a, b, c in zip(words, words[1:], words[2:], strict=False)):
                return "one word three times in a row"
            if any(len(piece) > _LONG_PIECE for piece in answer.split()) and _MARKS.search(answer):
                return "one character again and again"
            if monotony := _monotony(words):
                return monotony
        return _same_answers(sample)


def _near_sentences(sentences: list[str]) -> str:
    """Three sentences made of the same words."""
    bags = [frozenset(sentence.split()) - _SMALL for sentence in sentences[:12]]
    for number, bag in enumerate(bags):
        alike = sum(len(bag & other) >= 0.75 * len(bag | other) for other in bags if len(other) >= 3)
        if len(bag) >= 3 and alike >= 3:
            return f"says {alike} times in other order: {sentences[number][:60]!r}"
    return ""


def _monotony(words: list[str]) -> str:
    """Few words used again and again, however they are put."""
    if len(words) < _LONG:
        return ""
    head = words[: 2 * _LONG]
    telling = Counter(word for word in head if word not in _SMALL)
    word, number = telling.most_common(1)[0] if telling else ("", 0)
    if number >= 7 and number > 0.18 * len(head):
        return f"says {word!r} {number} times in {len(head)} words"
    different = len(set(head)) / len(head)
    return f"{len(set(head))} different words among {len(head)}" if different < _VARIED else ""


def _same_answers(sample: Sample) -> str:
    """Several questions with one and the same answer; short ones (`red`, `yes`, `two`) may well recur."""
    answers = Counter(plain for _, answer in sample.pairs if len((plain := _plain(answer)).split()) >= 2)
    answer, number = answers.most_common(1)[0] if answers else ("", 0)
    too_many = number >= _SAME_ANSWERS and number > 0.75 * len(sample.pairs)
    return f"answers {number} questions with {answer[:60]!r}" if too_many else ""


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
