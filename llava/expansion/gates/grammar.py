"""Grammar: the reply has the form that was asked for, roles in turn and nothing empty."""

from __future__ import annotations

import re

from llava.expansion.gates.base import Sample

# Roles of other chat formats, swapped in by models that lost the thread.
_ROLES = re.compile(
    r"(?:^|\n)\s*(?:USER|ASSISTANT|Human|Assistant|System)\s*:|<\|[a-z_]+\|>|</?s>|<unk>|\[/?INST\]|<image>|###"
)

_LABEL = re.compile(r"(?:^|[\s(])(?:Question|Answer|Q|A)\s*\d*\s*:", re.MULTILINE)
_EMPTY = re.compile(
    r"\A\W*(?:n/?a|none|null|nil|tbd|todo|undefined|blank|(?:question|answer)\s*\d*)?\W*\Z", re.IGNORECASE
)
_SLOT = re.compile(
    r"[\[{<](?:insert|your|describe|description|answer|question|name|placeholder|add|fill|detailed|write)\b[^\]}>]*[\]}>]"
    r"|\blorem ipsum\b",
    re.IGNORECASE,
)


class GrammarGate:
    """Broken blocks, swapped roles, control tokens, slots that were not filled."""

    name = "grammar"

    def check(self, sample: Sample) -> str:
        """The parser's message, or the stray role or control token found."""
        if sample.problem:
            return sample.problem
        stray = _ROLES.search(sample.text)
        if stray:
            return f"stray role or control token {stray.group().strip()!r}"
        for question, answer in sample.pairs:
            for part in (question, answer) if question else (answer,):
                if _EMPTY.match(part):
                    return f"nothing is said: {part[:40]!r}"
                if label := _LABEL.search(part):
                    return f"stray label {label.group().strip()!r}"
                if slot := _SLOT.search(part):
                    return f"a slot that was not filled: {slot.group()[:60]!r}"
            if question and question.strip().casefold() == answer.strip().casefold():
                return "the answer repeats its question"
            if answer.rstrip().endswith("?") and question and not question.rstrip().endswith("?"):
                return "question and answer seem swapped"
        return ""
