"""Steps and validations as the points that trackers show, under the names that go with them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from llava.config import Recipe
from llava.tracking.sink import OF_A_STEP, Point
from llava.training.job import StepRecord, Validation


def step_points(records: Sequence[StepRecord]) -> list[Point]:
    """A point a record; the last is now, the others before it by the seconds that the steps took."""
    moment = time.time()
    points = []
    for record in reversed(records):
        values: dict[str, float | None] = {
            OF_A_STEP: record.loss,
            "train/learning_rate": record.learning_rate,
            "train/grad_norm": record.grad_norm,
            "train/padding_share": record.padding,
            "train/tokens": float(record.tokens),
            "train/step_seconds": record.seconds / record.steps if record.seconds else None,
            "train/tokens_per_second": record.tokens / record.seconds if record.seconds else None,
            "train/data_wait_seconds": record.data_wait_seconds,
        }
        finite = {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
        points.append(Point(record.step, moment, finite))
        moment -= record.seconds or 0.0
    return points[::-1]


def validation_points(validations: Sequence[Validation]) -> list[Point]:
    """A point a validation."""
    return [Point(one.step, time.time(), {"validation/loss": one.loss}) for one in validations]


def parameters(recipe: Recipe, stage: str, **more: Any) -> dict[str, str]:
    """What a run was made from, flat by dotted name: model, the stage's section, and `more`."""
    sections = {"model": recipe.model.model_dump(mode="json"), stage: getattr(recipe, stage).model_dump(mode="json")}
    flat = {"recipe": recipe.name, **{name: str(value) for name, value in more.items()}}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{prefix}.{name}", inner)
        else:
            flat[prefix] = str(value)

    for name, section in sections.items():
        walk(name, section)
    return flat
