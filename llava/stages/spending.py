"""What a stage cost: accelerator hours, and money where a price is known."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from llava.errors import SettingsError

PRICE = "LLAVA_ACCELERATOR_PRICE"  # of one accelerator for one hour, in whatever currency
_COUNT = "accelerator_count"


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


def requested(values: Mapping[str, Any]) -> float:
    """Accelerators that a task asked for: kfp hands its requests to the container among the parameters."""
    for name, value in values.items():
        if name == _COUNT or (name.startswith("pipelinechannel--") and name.endswith("_accelerators")):
            text = str(value).strip()
            try:
                return max(float(text), 0.0)
            except ValueError:
                continue
    return 0.0
