"""Numbers as a person reads them, and axis ticks at round values.

A report is built after training: nothing here raises for a number, however small, large or far from being one.
"""

from __future__ import annotations

import math

LARGEST = 1e300  # beyond it, and below its inverse, differences and powers of ten leave the range of a float
_FINEST = 2.0**-40  # of a number's size: closer values cannot be told apart on an axis


def as_float(value: float | None) -> float:
    """`value` as a float that can be drawn: within +-1e300, and NaN where there is none. Infinities stay."""
    if value is None:
        return math.nan
    if isinstance(value, float) and not math.isfinite(value):
        return value
    return float(max(-LARGEST, min(LARGEST, value)))


def widened(low: float, high: float) -> tuple[float, float]:
    """`low` and `high`, apart by no less than floats can be told apart by on an axis."""
    size = max(abs(low), abs(high))
    short = max(size * _FINEST, 1 / LARGEST) - (high - low)
    return (low, high) if short <= 0 else (low - short / 2, high + short / 2)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """About `about` round values (1, 2 or 5 times a power of ten) that reach from at most `low` to at least `high`."""
    low, high = as_float(low), as_float(high)
    if high <= low:
        high = low + (abs(low) or 1.0)
    low, high = widened(low, high)
    raw = high / about - low / about
    exponent = math.floor(math.log10(raw))
    power = _ten_to(exponent)
    factor = next(factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)

    def at(index: int) -> float:
        return round(index * factor * power, 1 - exponent) if exponent < 0 else index * factor * power

    first, last = math.floor(low / power / factor + 1e-9), math.ceil(high / power / factor - 1e-9)
    # What the division rounded away is given back.
    first -= at(first) > low
    last += at(last) < high
    return [at(index) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten (with 2 and 5 between, where the range is short) around the positive range `low`..`high`."""
    low, high = (max(1 / LARGEST, min(LARGEST, value)) for value in (low, max(low, high)))
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    first -= _ten_to(first) > low
    last = max(last + (_ten_to(last) < high), first + 1)
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    step = max(1, (last - first) // 6)
    values = [factor * _ten_to(power) for power in range(first, last, step) for factor in factors] + [_ten_to(last)]
    inside = [value for value in values if low <= value <= high]
    below = [value for value in values if value < low][-1:]
    above = [value for value in values if value > high][:1]
    return below + inside + above


def _ten_to(exponent: int) -> float:
    return float(f"1e{exponent}")  # a power by multiplication is off in the last bit
