"""What a stage may say in JSON: no null, no NaN, no infinity. Kubeflow fails a finished task for any of them."""

from __future__ import annotations

import math
import sys
from typing import Any


def finite(value: Any) -> Any:
    """`value` without nulls and non-finite numbers, at any depth of dicts and lists."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items() if _says_something(item)}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value if _says_something(item)]
    return value


def finite_metrics(stage: str, metrics: dict[str, float]) -> dict[str, float]:
    """The metrics that are numbers; what is left out is said on stderr, because a run is not lost for one NaN."""
    dropped = sorted(name for name, value in metrics.items() if not _says_something(value))
    if dropped:
        print(f"{stage}: left out of the metrics because not finite: {', '.join(dropped)}", file=sys.stderr, flush=True)
    return {name: value for name, value in metrics.items() if name not in dropped}


def _says_something(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
