"""The lowest score of a good row: one number for all kinds, or one for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llava.errors import SettingsError
from llava.suggestions import meant


@dataclass(frozen=True)
class Thresholds:
    """Attributes:
    others: for kinds that `by_kind` does not name.
    """

    others: float
    by_kind: Mapping[str, float] = field(default_factory=dict)

    def of(self, kind: str) -> float:
        """The lowest score of a good row of the kind."""
        return self.by_kind.get(kind, self.others)


def read_thresholds(
    name: str, text: str, kinds: Sequence[str], *, default: float, low: float, high: float
) -> Thresholds:
    """Read `3`, `detail=4`, or `3,detail=4,reasoning=2.5`.

    Args:
        name: the setting, for messages.
        kinds: those that are made.
        default: for kinds without a number.

    Raises:
        SettingsError: no number, one outside `low` to `high`, or a kind that is not made.
    """
    others, by_kind = default, {}
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        kind, equals, number = (piece.strip() for piece in part.rpartition("="))
        if equals and kind not in kinds:
            raise SettingsError(f"{name}: {part!r}: {meant(kind, kinds)}")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise SettingsError(
                f"{name}: found {part!r}; expected a number from {low:g} to {high:g}, or kind=number, comma-separated"
            )
        if equals:
            by_kind[kind] = value
        else:
            others = value
    return Thresholds(others, by_kind)
