"""VQA accuracy (Antol et al. 2015, arXiv:1505.00468): an answer counts by how many of ten people gave it.

Score = mean over the leave-one-out subsets of the golds of min(1, matches / 3).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from llava.evaluation.contractions import CONTRACTIONS
from llava.written_numbers import NUMBER_WORDS

_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(NUMBER_WORDS[:11])}
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")  # the official pattern means to spare a period behind a digit as well, and does not
_PERIODS = 32  # the official script hands re.UNICODE to the place of `count`
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")


def normalise(text: str) -> str:
    """The official evaluation's normal form: punctuation, number words, articles, contractions."""
    given = text = text.replace("\n", " ").replace("\t", " ").strip()
    for mark in _PUNCTUATION:
        apart = f"{mark} " in given or f" {mark}" in given or _COMMA_IN_NUMBER.search(given)
        text = text.replace(mark, "" if apart else " ")
    words = [_NUMBERS.get(word, word) for word in _PERIOD.sub("", text, count=_PERIODS).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def normalise_tokens(text: str) -> str:
    """The EvalAI processor's normal form, which TextVQA is scored by and the original puts every VQA answer into."""
    return normalise(text.lower().replace(",", "").replace("?", "").replace("'s", " 's"))


def accuracy(
    answer: str,
    golds: Sequence[str],
    normal: Callable[[str], str] = normalise,
    *,
    plain_if_unanimous: bool = False,
) -> float:
    """VQA accuracy of one answer against people's answers.

    Args:
        answer: the model's.
        golds: people's, usually ten.
        normal: both are compared in this form.
        plain_if_unanimous: compare as written where all golds are equal, as the official VQA scorer does.
    """
    if plain_if_unanimous and len(set(golds)) == 1:
        own, others = " ".join(answer.split()), [" ".join(gold.split()) for gold in golds]
    else:
        own, others = normal(answer), [normal(gold) for gold in golds]
    matches, people = others.count(own), len(others)
    if people <= 1:
        return float(matches)
    # Leaving out one of the matches leaves one less; leaving out anyone else leaves all of them.
    return (matches * min(1.0, (matches - 1) / 3) + (people - matches) * min(1.0, matches / 3)) / people
