"""How often a judge and the gates are of one mind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

KEPT = ""


@dataclass
class Agreement:
    """Counts of judged replies.

    Attributes:
        verdicts: (gate that dropped the reply, or `KEPT`; whether the judge calls it good) -> replies.
        scores: kind -> score -> rows that passed the gates.
        unread: replies of the judge without a score, or none at all.
        dropped: rows that the judge's score took out.
    """

    verdicts: Counter[tuple[str, bool]] = field(default_factory=Counter)
    scores: dict[str, Counter[float]] = field(default_factory=dict)
    unread: int = 0
    dropped: int = 0

    def add(self, kind: str, gate: str, score: float | None, *, good: bool) -> None:
        """Count one reply; `gate` is `KEPT` for one that passed the gates."""
        if score is None:
            self.unread += 1
            return
        self.verdicts[gate, good] += 1
        if gate == KEPT:
            self.scores.setdefault(kind, Counter())[score] += 1

    @property
    def gates(self) -> list[str]:
        """The gates of judged replies, `KEPT` first."""
        return sorted({gate for gate, _ in self.verdicts})

    def count(self, *, kept: bool, good: bool) -> int:
        """Replies in one cell of the table of gates against judge."""
        return sum(n for (gate, verdict), n in self.verdicts.items() if (gate == KEPT) is kept and verdict is good)

    @property
    def judged(self) -> int:
        """Replies with a score."""
        return self.verdicts.total()

    @property
    def rate(self) -> float | None:
        """Share on which both agree; None when nothing was judged."""
        agreed = self.count(kept=True, good=True) + self.count(kept=False, good=False)
        return agreed / self.judged if self.judged else None

    @property
    def kappa(self) -> float | None:
        """Agreement beyond chance (Cohen 1960); None where chance alone agrees fully."""
        total = self.judged
        if not total:
            return None
        kept = self.count(kept=True, good=True) + self.count(kept=True, good=False)
        good = self.count(kept=True, good=True) + self.count(kept=False, good=True)
        chance = (kept * good + (total - kept) * (total - good)) / total**2
        return None if chance == 1 else ((self.rate or 0.0) - chance) / (1 - chance)

    def mean_score(self, kind: str) -> float:
        """Mean score of the kind's rows that passed the gates."""
        scores = self.scores[kind]
        return sum(score * n for score, n in scores.items()) / scores.total()
