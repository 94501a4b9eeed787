"""Multiple choice: how options are shown, and which one an answer means.

Options are held by their letter, so that one that is absent moves no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from llava.evaluation.benchmark import OPTION_LETTER
from llava.evaluation.normalise import lenient

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Options = Mapping[str, str]

_SCIENCEQA = tuple("ABCDE")
_STATED = re.compile(r"The answer is ([A-Z]).")
_LEADING = re.compile(r"^\(?([A-Z])\)?(?:[.:,)\s]|$)")
_ANYWHERE = re.compile(r"\b(?:answer|option|choice)(?: is|:)?\s*\(?([A-Z])\b", re.IGNORECASE)
_APART = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)


def lettered(options: Sequence[str]) -> dict[str, str]:
    """Options by letter, in their order: A, B, C, ...

    Raises:
        ValueError: more options than letters.
    """
    return dict(zip(LETTERS[: len(options)], options, strict=True))


def ask(question: str, options: Options, hint: str = "", suffix: str = OPTION_LETTER) -> str:
    """The prompt: hint, question, lettered options, and that a letter is wanted."""
    lines = [hint] if hint else []
    lines.append(question)
    lines += [f"{letter}. {option}" for letter, option in options.items()]
    return "\n".join(lines) + suffix


def letter_only(answer: str, letters: Iterable[str] = LETTERS) -> str | None:
    """The answer if it is exactly a letter."""
    text = answer.strip()
    return text if len(text) == 1 and text in letters else None


def stated(answer: str, options: Iterable[str] = _SCIENCEQA) -> str | None:
    """A letter, a leading `X. ...`, or exactly one `The answer is X.`; ScienceQA's reading. None if it is no option."""
    text = answer.strip()
    found = _STATED.findall(text)
    said = None
    if text in _SCIENCEQA:
        said = text
    elif len(text) >= 3 and text[0] in _SCIENCEQA and text[1:3] == ". ":
        said = text[0]
    elif len(found) == 1:
        said = found[0]
    return said if said in set(options) else None


def inferred(answer: str, options: Options) -> str | None:
    """MMBench's reading, as VLMEvalKit publishes it (`can_infer`, exact matching without a judge).

    The answer's marks become blanks; if exactly one option letter stands alone among its words, that is it ("A.",
    "(A)", "Answer:C", "Option C", "The answer is B"). Otherwise the only option whose text the answer contains, case
    aside. A refusal is no option. "A dog." therefore means A, as it does there.
    """
    if any(refusal in answer for refusal in _REFUSALS):
        return None
    words = set(answer.translate(_APART).split())
    alone = [letter for letter in options if letter in words]
    if len(alone) == 1:
        return alone[0]
    if not alone and "Z" in words:
        return None
    text = answer.lower()
    inside = [letter for letter, option in options.items() if option.lower() in text]
    return inside[0] if len(inside) == 1 else None


def understood(answer: str, options: Options) -> str | None:
    """A leading letter in any dress, a letter named as the answer, or the text of exactly one option."""
    text = answer.strip()
    leading = _LEADING.match(text)
    if leading and leading[1] in options and not (leading[1] == "A" and text[1:2] == " "):
        return str(leading[1])
    named = {match.upper() for match in _ANYWHERE.findall(text)} & set(options)
    if len(named) == 1:
        return str(named.pop())
    return by_text(text, options)


def by_text(answer: str, options: Options) -> str | None:
    """The letter of the only option whose text occurs in the answer; equality wins over occurrence."""
    own = f" {lenient(answer)} "
    equal = [letter for letter, option in options.items() if own.strip() == lenient(option)]
    if len(equal) == 1:
        return equal[0]
    inside = [letter for letter, option in options.items() if lenient(option) and f" {lenient(option)} " in own]
    return inside[0] if len(inside) == 1 else None
