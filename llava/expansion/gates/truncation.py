"""Truncation: a reply that was cut off is never usable, whatever its text looks like."""

from __future__ import annotations

import re

from llava.expansion.gates.base import Sample

_OPEN_END = re.compile(r"(?:[,;:(\-]|\b(?:and|or|the|a|an|of|with|to|in|on|at|is|are|which|that))$", re.IGNORECASE)


class TruncationGate:
    """`finish_reason` other than a regular stop, or a long answer that ends in mid-sentence."""

    name = "truncation"

    def check(self, sample: Sample) -> str:
        """Why the reply counts as cut off."""
        if sample.finish_reason != "stop":
            return f"finish_reason is {sample.finish_reason!r}"
        last = (sample.pairs[-1][1] if sample.pairs else sample.reply).rstrip()
        words = last.split()
        if len(words) >= 4 and _OPEN_END.search(last):
            return f"ends in mid-sentence: {' '.join(words[-4:])!r}"
        if len(words) >= 15 and not last.endswith((".", "!", "?", '"', "'", ")", "”", "’", "*", "`")):
            return f"ends without a full stop: {' '.join(words[-4:])!r}"
        return ""
