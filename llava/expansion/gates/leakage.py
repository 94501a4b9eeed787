"""Leakage: the row talks of captions, boxes or coordinates, or repeats the prompt, as no one who looks would."""

from __future__ import annotations

import re

from llava.expansion.gates.base import Sample

_LEAK = re.compile(
    r"\b(?:the|these|those|this|your|given|provided|five|several|above|first|second|third|last|each|all|other|four|of) "
    r"(?:\w+ )?captions?\b"
    r"|\bcaptions? (?:say|mention|describe|state|indicate|suggest|note|provide|give)s?\b|\bin (?:the )?captions\b"
    r"|\b(?:according to|based on|from|in|per|given) (?:the|these|those|your|this) "
    r"(?:\w+ )?(?:captions?|sentences?|descriptions?|annotations?|text|input|information|data|context|list|labels?"
    r"|metadata)\b"
    r"|\bthe (?:descriptions?|sentences?|annotations?|text) "
    r"(?:say|mention|describe|state|indicate|suggest|note|provide|give)s?\b"
    r"|\b(?:provided|given|supplied) (?:descriptions?|sentences?|information|context|annotations?|text|details|data)\b"
    r"|\bbounding[- ]?box(?:es)?\b|\bbbox(?:es)?\b"
    r"|\b(?:the|its|their|object|box|these|those|given|exact|normali[sz]ed) "
    r"(?:\w+ )?coordinates\b|\bcoordinates? (?:of|are|is|\[|\(|:|given|provided|show|indicate|suggest)"
    r"|\bx ?[- ]?coordinates?\b|\by ?[- ]?coordinates?\b|\b[xy][12] ?="
    r"|\b[xy] (?:(?:from|between) |= ?)-?(?:0?\.)?\d"
    r"|\bannotat(?:ed|ions?)\b|\bfew-?shot\b|\bsystem (?:prompt|message)\b|\bground[- ]truth\b",
    re.IGNORECASE,
)
_NUMBERS = re.compile(
    r"[\[(]\s*-?(?:0?\.\d+|[01]\.\d+|\d+(?:\.\d+)?)(?:\s*,\s*-?(?:\d*\.)?\d+){1,3}\s*[\])]|\b0\.\d{3}\b"
    r"|\b0?\.\d{2} ?(?:to|and|-|–) ?[01]?\.\d{2}\b"
)
_PROMPT_WORDS = 12


class LeakageGate:
    """Words about the teacher's material, coordinates, and runs of words copied from the prompt."""

    name = "leakage"

    def __init__(self) -> None:
        self._prompts: dict[str, set[tuple[str, ...]]] = {}

    def check(self, sample: Sample) -> str:
        """The words that give the prompt away."""
        text = sample.text
        found = _LEAK.search(text) or _NUMBERS.search(text)
        if found:
            return f"{found.group()!r}"
        words = _words(text)
        if len(words) >= _PROMPT_WORDS:
            prompt = self._of(sample)
            for start in range(len(words) - _PROMPT_WORDS + 1):
                run = tuple(words[start : start + _PROMPT_WORDS])
                if run in prompt:
                    return f"copied from the prompt: {' '.join(run)!r}"
        return ""

    def _of(self, sample: Sample) -> set[tuple[str, ...]]:
        if sample.kind.name not in self._prompts:
            runs: set[tuple[str, ...]] = set()
            for message in sample.kind.prefix():
                words = _words(message["content"])
                runs.update(tuple(words[k : k + _PROMPT_WORDS]) for k in range(len(words) - _PROMPT_WORDS + 1))
            self._prompts[sample.kind.name] = runs
        return self._prompts[sample.kind.name]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())
