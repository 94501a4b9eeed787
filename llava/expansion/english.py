"""The little English that gates and the offline teacher share: numbers and plurals."""

from __future__ import annotations

from llava.written_numbers import NUMBER_WORDS

_IRREGULAR = {
    "man": "men", "woman": "women", "child": "children", "person": "people", "sheep": "sheep", "knife": "knives",
    "skis": "skis", "scissors": "scissors", "gentleman": "gentlemen", "calf": "calves", "ox": "oxen", "goose": "geese",
    "people": "people", "men": "men", "women": "women", "children": "children", "kids": "kids", "cattle": "cattle",
    "luggage": "luggage", "baggage": "baggage", "broccoli": "broccoli", "aircraft": "aircraft", "bus": "buses",
    "skier": "skiers", "mouse": "mice",
}  # fmt: skip


def plural(noun: str) -> str:
    """`circle` -> `circles`, `cross` -> `crosses`, `man` -> `men`, `fire hydrant` -> `fire hydrants`."""
    head, _, last = noun.rpartition(" ")
    start = f"{head} " if head else ""
    if last in _IRREGULAR:
        return start + _IRREGULAR[last]
    if last.endswith(("s", "sh", "ch", "x")):
        return f"{start}{last}es"
    if last.endswith("y") and len(last) > 1 and last[-2] not in "aeiou":
        return f"{start}{last[:-1]}ies"
    return f"{start}{last}s"


def number_of(word: str) -> int | None:
    """`two` -> 2, `12` -> 12, `a` -> 1; None for anything else."""
    word = word.lower()
    if word in NUMBER_WORDS:
        return NUMBER_WORDS.index(word)
    if word in ("a", "an", "single"):
        return 1
    return int(word) if word.isdigit() and len(word) < 4 else None
