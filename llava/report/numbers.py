"""Numbers as a person reads them, and axis ticks at round values."""

from __future__ import annotations

import math


def readable(value: float | str) -> str:
    """Four significant digits at most, thousands separated; text is passed through.

    >>> readable(0.83333), readable(12345.6), readable(3.0), readable(1.2e-7)
    ('0.8333', '12,346', '3', '1.2e-07')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """About `about` round values (1, 2 or 5 times a power of ten) that reach from at most `low` to at least `high`."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten (with 2 and 5 between, where the range is short) around the positive range `low`..`high`."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    step = max(1, (last - first) // 6)
    values = [factor * 10.0**power for power in range(first, last, step) for factor in factors] + [10.0**last]
    inside = [value for value in values if low <= value <= high]
    below = [value for value in values if value < low][-1:]
    above = [value for value in values if value > high][:1]
    return below + inside + above
