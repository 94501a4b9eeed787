"""Multiple choice: how options are shown, and which one an answer means."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llava.evaluation.benchmark import OPTION_LETTER
from llava.evaluation.normalise import lenient

LETTERS = "ABCDEFGHIJ"
_STATED = re.compile(r"The answer is ([A-Z]).")
_LEADING = re.compile(r"^\(?([A-J])\)?(?:[.:,)\s]|$)")
_ANYWHERE = re.compile(r"\b(?:answer|option|choice)(?: is|:)?\s*\(?([A-J])\b", re.IGNORECASE)


def ask(question: str, options: Sequence[str], hint: str = "") -> str:
    """The prompt: hint, question, lettered options, and that a letter is wanted."""
    lines = [hint] if hint else []
    lines.append(question)
    lines += [f"{LETTERS[k]}. {option}" for k, option in enumerate(options)]
    return "\n".join(lines) + OPTION_LETTER


def letter_only(answer: str) -> str | None:
    """The answer if it is exactly a letter."""
    text = answer.strip()
    return text if len(text) == 1 and text in LETTERS else None


def stated(answer: str) -> str | None:
    """A letter, a leading `X. ...`, or exactly one `The answer is X.`; ScienceQA's reading."""
    text = answer.strip()
    if letter_only(text):
        return text
    if len(text) >= 3 and text[0] in LETTERS and text[1:3] == ". ":
        return text[0]
    found = _STATED.findall(text)
    return found[0] if len(found) == 1 else None


def understood(answer: str, options: Sequence[str]) -> str | None:
    """A leading letter in any dress, a letter named as the answer, or the text of exactly one option."""
    text = answer.strip()
    leading = _LEADING.match(text)
    if leading and leading[1] in LETTERS[: len(options)] and not (leading[1] == "A" and text[1:2] == " "):
        return str(leading[1])
    named = {match.upper() for match in _ANYWHERE.findall(text)}
    if len(named) == 1:
        return str(named.pop())
    return by_text(text, options)


def by_text(answer: str, options: Sequence[str]) -> str | None:
    """The letter of the only option whose text occurs in the answer; equality wins over occurrence."""
    own = f" {lenient(answer)} "
    equal = [LETTERS[k] for k, option in enumerate(options) if own.strip() == lenient(option)]
    if len(equal) == 1:
        return equal[0]
    inside = [LETTERS[k] for k, option in enumerate(options) if lenient(option) and f" {lenient(option)} " in own]
    return inside[0] if len(inside) == 1 else None
