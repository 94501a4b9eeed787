"""Numbers as people write and read them: figures for a page or a log line, and the small ones as words."""

from __future__ import annotations

import math

NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)


def readable(value: float | str | None) -> str:
    """Four significant digits at most, thousands separated; text is passed through, None is a dash. Never raises.

    >>> readable(0.83333), readable(12345.6), readable(3.0), readable(1.2e-7), readable(1e300)
    ('0.8333', '12,346', '3', '1.2e-07', '1e+300')
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else f"{float(max(-1e300, min(1e300, value))):.4g}"
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1e15:
        return f"{value:.4g}"
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
