"""How long to wait before trying again, and when to give up: the one rule of every bounded retry."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Pauses:
    """Seconds before each retry: `first`, then twice as long each time, at most `longest`.

    Attributes:
        spread: share of a pause that is left to chance, so that many who failed together do not come back together.
    """

    first: float = 10.0
    longest: float = 300.0
    spread: float = 0.0

    def before(self, retry: int) -> float:
        """Seconds before the retry of this number, counted from 0."""
        pause = min(self.first * 2.0 ** min(retry, 64), self.longest)
        return pause * (1 - self.spread * random.random())

    def attempts(self, *, most: int | None = None, within_s: float | None = None) -> Iterator[int]:
        """Numbers of attempts from 0, sleeping in between; ends after `most`, or where the next would start too late.

        The caller leaves the loop when one has succeeded; what stands behind the loop is giving up.
        """
        end = None if within_s is None else time.monotonic() + within_s
        attempt = 0
        while True:
            yield attempt
            pause = self.before(attempt)
            attempt += 1
            if attempt == most or (end is not None and time.monotonic() + pause > end):
                return
            time.sleep(pause)
