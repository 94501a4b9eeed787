"""Truncation: a reply that was cut off is never usable, whatever its text looks like."""

from __future__ import annotations

import re

from llava.expansion.gates.base import Sample

_OPEN_END = re.compile(
    r"(?:[,;:(\-–—]|\b(?:and|or|but|the|a|an|of|with|to|in|on|at|by|for|from|into|is|are|was|were|be|has|have|which|that|who"
    r"|while|because|so|as|than|her|his|its|their|my|your|very|slightly|more|such|this|these))$",
    re.IGNORECASE,
)
_LIST_END = re.compile(r"(?:^|\s)1[.)]\s.*\s\d{1,2}[.)]$", re.DOTALL)  # a list whose last item is only its number
_CLOSING = (".", "!", "?", '"', "'", ")", "”", "’", "*", "`", "。", "！", "？", "…", "]")


class TruncationGate:
    """`finish_reason` other than a regular stop, or a long answer that ends in mid-sentence."""

    name = "truncation"

    def check(self, sample: Sample) -> str:
        """Why the reply counts as cut off."""
        if sample.finish_reason != "stop":
            return f"finish_reason is {sample.finish_reason!r}"
        last = (sample.pairs[-1][1] if sample.pairs else sample.reply).rstrip()
        words = last.split()
        if len(words) >= 4 and _OPEN_END.search(last[-24:]):
            return f"ends in mid-sentence: {' '.join(words[-4:])!r}"
        if last[-2:-1].isdigit() and _LIST_END.search(last):
            return f"ends in a list: {' '.join(words[-4:])!r}"
        if last.count("(") > last.count(")") or last.count("“") > last.count("”") or last.count('"') % 2:
            return "a bracket or quotation is not closed"
        if len(words) >= 10 and not last.endswith(_CLOSING):
            return f"ends without a full stop: {' '.join(words[-4:])!r}"
        return ""
