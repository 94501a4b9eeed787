"""The page of a run under way: it stands where the report will, loads itself again, and gives way to the report."""

from __future__ import annotations

import contextlib
import math
import time

from llava import storage
from llava.errors import StorageError
from llava.expansion.asking.dispatch import Outcome
from llava.report import Report

_EVERY_S = 5.0
_REMOTE_EVERY_S = 30.0


class LivePage:
    """Writes kept, dropped, cost and time left every few seconds. A page that cannot be written stops nobody.

    Args:
        uri: of the report.
        total: replies to ask for.
    """

    def __init__(self, uri: str, total: int, currency: str, warning: str = "") -> None:
        self._uri, self._total, self._currency, self._warning = uri, total, currency, warning
        self._every = _REMOTE_EVERY_S if storage.is_remote(uri) else _EVERY_S
        self._began = time.monotonic()
        self._written = -math.inf

    def update(self, outcome: Outcome, cost: float, *, stopped: str = "") -> None:
        """Show how far it is; at once where it stopped."""
        now = time.monotonic()
        if not stopped and now - self._written < self._every:
            return
        self._written = now
        page = Report("Data expansion, stopped" if stopped else "Data expansion, under way", self._uri)
        if self._warning:
            page.text(f"WARNING: {self._warning}.")
        done = outcome.answered + outcome.dropped + outcome.failed
        left = (self._total - done) * (now - self._began) / done if done else None
        page.figures(
            {
                "of the replies asked for": f"{done:,} of {self._total:,}",
                "kept so far": outcome.answered,
                "dropped": outcome.dropped,
                "given up": outcome.failed,
                f"cost, {self._currency}": round(cost, 4),
                "time left": "not known" if left is None else clock(left),
            }
        )
        if stopped:
            page.text(f"Stopped: {stopped}")
        page.table("Faults", ["fault", "times"], [[name, times] for name, times in outcome.faults.most_common(10)])
        with contextlib.suppress(StorageError, OSError):
            storage.write_text(self._uri, page.html(refresh_s=0 if stopped else round(self._every)))


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
