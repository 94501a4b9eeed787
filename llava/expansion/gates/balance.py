"""Balance: a data set whose yes/no questions are mostly answered `yes` teaches a model to say yes."""

from __future__ import annotations

import re

from llava.expansion.gates.base import Sample

_YES_NO = re.compile(r"^(?:is|are|was|were|do|does|did|can|could|has|have|will|would|should)\b", re.IGNORECASE)
_SLACK = 20


class BalanceGate:
    """Drops rows that would carry the share of one answer above `most`; sees rows in the run's fixed order.

    Per kind: the first rows pass whatever they say (`_SLACK` answers), because a share of little says little.

    Args:
        most: largest share of one of the two answers.
    """

    name = "balance"

    def __init__(self, most: float = 0.75) -> None:
        self._most = most
        self._seen: dict[str, tuple[int, int]] = {}

    def check(self, sample: Sample) -> str:
        """Which answer there is too much of."""
        yes = no = 0
        for question, answer in sample.pairs:
            if _YES_NO.match(question):
                yes += bool(re.match(r"yes\b", answer, re.IGNORECASE))
                no += bool(re.match(r"no\b", answer, re.IGNORECASE))
        if yes == no:
            return ""
        seen_yes, seen_no = self._seen.get(sample.kind.name, (0, 0))
        total_yes, total_no = seen_yes + yes, seen_no + no
        larger, name = (total_yes, "yes") if yes > no else (total_no, "no")
        if larger > self._most * (total_yes + total_no) + _SLACK / 2:
            return f"{larger} of {total_yes + total_no} yes/no answers would be {name!r}"
        self._seen[sample.kind.name] = (total_yes, total_no)
        return ""
