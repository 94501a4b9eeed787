"""What a tracker has to do for us, and what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

# A step's own point has this value, a validation's has not.
OF_A_STEP = "train/loss"


@dataclass(frozen=True)
class Point:
    """Values by name (`train/loss`) after `step` optimiser steps, fetched at `unix_time` (seconds)."""

    step: int
    unix_time: float
    values: dict[str, float]


@dataclass(frozen=True)
class About:
    """The run that is tracked.

    Attributes:
        name: shown in the tracker's list of runs.
        parameters: recipe and data, flat, by dotted name.
        first_step: optimiser steps done before this process began; above 0 it resumes.
        folder: for what a tracker writes itself; local or remote.
    """

    name: str
    parameters: dict[str, str]
    first_step: int
    folder: str


class Sink(Protocol):
    """One tracker's run. Any method may raise anything; `Tracker` answers for it.

    Attributes:
        identity: what finds this run again when training resumes.
    """

    identity: str

    def has(self, point: Point) -> bool:
        """Whether it is there already, from a process before this one or from a request that failed half-way."""

    def write(self, points: Sequence[Point]) -> None:
        """Points in order of their steps."""

    def flush(self) -> None:
        """What was written outlives this process once this returns."""

    def close(self, finished: bool, summary: dict[str, float]) -> None:
        """The end, good or bad, with the run's last figures."""
