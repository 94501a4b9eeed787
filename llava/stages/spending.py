"""What a stage cost: accelerator hours, and money where a price is known."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from llava.errors import SettingsError

PRICE = "LLAVA_ACCELERATOR_PRICE"  # of one accelerator for one hour, in whatever currency
_HELD: ContextVar[float] = ContextVar("accelerators held", default=0.0)


def price_of_environment() -> float | None:
    """Price of one accelerator for an hour; None where none is set.

    Raises:
        SettingsError: it is no number of at least 0.
    """
    text = os.environ.get(PRICE, "").strip()
    if not text:
        return None
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not (math.isfinite(price) and price >= 0):
        raise SettingsError(f"{PRICE}: found {text!r}; expected the price of an accelerator for one hour, such as 2.5")
    return price


def spent(accelerators: float, seconds: float) -> dict[str, float]:
    """Metrics `accelerator_hours` and, with a price, `cost`; empty on CPU.

    Args:
        accelerators: held at the same time, on all nodes together.
        seconds: how long.
    """
    if accelerators <= 0:
        return {}
    hours = accelerators * seconds / 3600
    price = price_of_environment()
    return {"accelerator_hours": hours, **({} if price is None else {"cost": hours * price})}


@contextmanager
def holding(accelerators: float) -> Iterator[None]:
    """Within the block this pod holds so many accelerators; a stage that reports before its end asks `spent_so_far`."""
    before = _HELD.set(accelerators)
    try:
        yield
    finally:
        _HELD.reset(before)


def spent_so_far(seconds: float) -> dict[str, float]:
    """As `spent`, of the accelerators of this pod."""
    return spent(_HELD.get(), seconds)
