"""A sampled second opinion: a teacher judges kept and dropped replies; how often it agrees with the gates is reported.

The judge changes no row. Its requests go through the same ledger, limits and budget as all others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llava.expansion.asking.ledger import Ledger
from llava.expansion.recipe.kinds import JudgeRecipe, Sampling
from llava.expansion.recipe.requests import Request, RequestMaker
from llava.expansion.rows.assembly import Result
from llava.expansion.rows.sampling import Group
from llava.expansion.teachers.base import Reply

KIND = "judge"
_VERDICT = re.compile(r"^\s*\**verdict\**\s*:\s*\**\s*(good|bad)\b", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Verdicts against gates.

    Attributes:
        kept_good: rows that gates and judge both like; the other counts likewise.
        unread: replies without a verdict.
    """

    kept_good: int = 0
    kept_bad: int = 0
    dropped_good: int = 0
    dropped_bad: int = 0
    unread: int = 0

    @property
    def judged(self) -> int:
        """Replies with a verdict."""
        return self.kept_good + self.kept_bad + self.dropped_good + self.dropped_bad

    @property
    def rate(self) -> float | None:
        """Share on which both agree; None when nothing was judged."""
        return (self.kept_good + self.dropped_bad) / self.judged if self.judged else None

    @property
    def kappa(self) -> float | None:
        """Agreement beyond chance (Cohen 1960); None where chance alone agrees fully."""
        total = self.judged
        if not total:
            return None
        kept, good = self.kept_good + self.kept_bad, self.kept_good + self.dropped_good
        chance = (kept * good + (total - kept) * (total - good)) / total**2
        return None if chance == 1 else ((self.rate or 0.0) - chance) / (1 - chance)


def judge_requests(
    sample: Sequence[tuple[Group, Result]],
    recipe: JudgeRecipe,
    model: str,
    extra_body: Mapping[str, Any] | None = None,
) -> list[tuple[Request, bool]]:
    """A request for every sampled result that has a reply, with whether the gates kept it."""
    prefix = [{"role": "system", "content": recipe.system.strip()}]
    maker = RequestMaker(KIND, prefix, model, Sampling(max_tokens=recipe.max_tokens), extra_body)
    requests = []
    for _, result in sample:
        if result.entry is None or not result.entry.text:
            continue
        context = f"{result.request.context}\n\n---\n{result.entry.text}"
        requests.append((maker.request(result.request.image, context), result.row is not None))
    return requests


def verdict(text: str) -> bool | None:
    """True for `Verdict: good`, False for `Verdict: bad`, None for neither."""
    match = _VERDICT.search(text)
    return None if match is None else match.group(1).lower() == "good"


def unusable_verdict(kind: str, reply: Reply) -> str:
    """Why a judge's reply cannot be used."""
    return "" if verdict(reply.text) is not None else "judge: no line `Verdict: good` or `Verdict: bad`"


def read_agreement(requests: Sequence[tuple[Request, bool]], ledger: Ledger) -> Agreement:
    """Count verdicts in the ledger."""
    counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    unread = 0
    for request, kept in requests:
        entry = ledger.get(request.id)
        good = verdict(entry.text) if entry is not None and entry.status == "answered" else None
        if good is None:
            unread += 1
        else:
            counts[kept, good] += 1
    return Agreement(counts[True, True], counts[True, False], counts[False, True], counts[False, False], unread)
