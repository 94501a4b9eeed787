"""The canary: a teacher whose replies are mostly unusable is found out by the first fifty, not by the bill."""

from __future__ import annotations

from collections import Counter, deque

_EXAMPLES = 3
_SHOWN = 160


class Canary:
    """Looks at each reply's fate; says when to stop.

    Args:
        most: largest share of bad replies in a window; 1: never stop.
        window: replies in a window.
    """

    WINDOW = 50

    def __init__(self, most: float, window: int = WINDOW) -> None:
        self._most = most
        self._window = window
        self._fates: deque[str] = deque(maxlen=window)
        self._examples: deque[tuple[str, str]] = deque(maxlen=_EXAMPLES)
        self.seen = 0

    @property
    def young(self) -> bool:
        """True until the first window is full: each of these replies is worth a closer look."""
        return self.seen < self._window

    def see(self, reason: str, text: str) -> str:
        """Take note of one reply; why to stop, or an empty text.

        Args:
            reason: why it is bad; empty for a good one.
        """
        self.seen += 1
        self._fates.append(reason.partition(":")[0])
        if reason:
            self._examples.append((reason, text))
        bad = sum(1 for fate in self._fates if fate)
        if len(self._fates) < self._window or bad <= self._most * self._window:
            return ""
        gates = ", ".join(
            f"{gate} {number}" for gate, number in Counter(fate for fate in self._fates if fate).most_common(3)
        )
        which = "the first" if self.seen == self._window else "the last"
        shown = "; ".join(f"{why}: {short(text)!r}" for why, text in self._examples)
        return (
            f"{bad} of {which} {self._window} replies cannot be used ({gates}), more than max_unusable "
            f"({self._most:g}); the last ones: {shown}"
        )


def short(text: str) -> str:
    """The text as it fits into a message."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
