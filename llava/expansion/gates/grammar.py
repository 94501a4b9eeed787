"""Grammar: the reply has the form that was asked for, roles in turn and nothing empty."""

from __future__ import annotations

import re

from llava.expansion.gates.base import Sample

# Roles of other chat formats, swapped in by models that lost the thread.
_ROLES = re.compile(
    r"(?:^|\n)\s*(?:USER|ASSISTANT|Human|Assistant|System)\s*:|<\|[a-z_]+\|>|</?s>|<unk>|\[/?INST\]|<image>|###"
)


class GrammarGate:
    """Broken blocks, swapped roles, control tokens."""

    name = "grammar"

    def check(self, sample: Sample) -> str:
        """The parser's message, or the stray role or control token found."""
        if sample.problem:
            return sample.problem
        stray = _ROLES.search(sample.text)
        if stray:
            return f"stray role or control token {stray.group().strip()!r}"
        for question, answer in sample.pairs:
            if question and question.strip().casefold() == answer.strip().casefold():
                return "the answer repeats its question"
            if answer.rstrip().endswith("?") and question and not question.rstrip().endswith("?"):
                return "question and answer seem swapped"
        return ""
