"""The table at the end: what was done, how it ended, what was not as promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Row:
    """One attempt.

    Attributes:
        fired: faults that took place in it.
        code: exit status; negative: the signal that ended it.
        broken: promises that did not hold.
        compared: the outputs were made whole in the end, and compared.
    """

    stage: str
    place: str
    fault: str
    fired: int
    code: int
    seconds: float
    broken: list[str] = field(default_factory=list)
    compared: bool = False

    def line(self) -> str:
        how = "went through" if self.code == 0 else "killed" if self.code < 0 else f"ended with {self.code}"
        verdict = "; ".join(self.broken) or "as promised"
        what = f"{self.stage:<13}{self.place:<6}{self.fault:<29}{self.fired:>3}"
        return f"{what}  {how:<13}{self.seconds:>6.1f} s  {verdict}"


def table(rows: Sequence[Row]) -> str:
    """By stage, place and kind of fault: how many, how they ended, how many broke a promise."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.fault != "none":
            groups.setdefault((row.stage, row.place, row.fault), []).append(row)
    lines = ["| stage | writes to | fault | faults | went through | ended, resumed | compared | broken promises |"]
    lines.append("|---|---|---|---:|---:|---:|---:|---:|")
    for (stage, place, fault), group in groups.items():
        through = sum(row.code == 0 for row in group)
        compared, broken = sum(row.compared for row in group), sum(bool(row.broken) for row in group)
        fired = sum(row.fired for row in group)
        cells = (stage, place, fault, fired, through, len(group) - through, compared, broken)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    resumed = [row for row in rows if row.fault == "none" and row.broken]
    total = sum(row.fired for row in rows)
    broken = sum(bool(row.broken) for row in rows)
    lines.append("")
    lines.append(
        f"{total} faults in {sum(row.fault != 'none' for row in rows)} attempts; {broken} attempts broke a promise"
        + (f", {len(resumed)} of them when resuming" if resumed else "")
    )
    return "\n".join(lines)
