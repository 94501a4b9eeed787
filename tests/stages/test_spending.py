"""Accelerator hours and their price: by hand, from what kfp hands a task, and from the environment."""

from __future__ import annotations

import pytest

from llava.errors import SettingsError
from llava.stages import spending
from llava.stages.train_stage import _metrics
from llava.training.job import Result


def test_hours_and_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(spending.PRICE, raising=False)
    assert spending.spent(8, 1800) == {"accelerator_hours": 4.0}
    monkeypatch.setenv(spending.PRICE, "2.5")
    assert spending.spent(8, 1800) == {"accelerator_hours": 4.0, "cost": 10.0}
    assert spending.spent(0, 1800) == {}, "nothing is said of CPUs"


@pytest.mark.parametrize("text", ["free", "-1", "nan", "inf"])
def test_a_price_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(spending.PRICE, text)
    with pytest.raises(SettingsError, match="LLAVA_ACCELERATOR_PRICE: found"):
        spending.price_of_environment()


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({"accelerator_count": "4"}, 4.0),
        ({"pipelinechannel--evaluate_accelerators": "2", "batch_size": 64.0}, 2.0),
        ({"accelerator_count": "0"}, 0.0),
        ({"accelerator_count": "many", "batch_size": 3}, 0.0),
        ({}, 0.0),
    ],
)
def test_what_a_task_asked_for(values: dict[str, object], count: float) -> None:
    assert spending.requested(values) == count


@pytest.mark.parametrize(("device", "hours"), [("NVIDIA H100 80GB HBM3", 8.0), ("2 CPU threads", None)])
def test_a_training_stage_counts_every_rank(device: str, hours: float | None) -> None:
    result = Result(
        steps=10, resumed_from=None, world_size=16, device=device, history=[], validations=[], samples=[], numbers={},
        deepspeed_config={}, warnings=[], data_sha256="", problems=[],
    )  # fmt: skip
    assert _metrics(result, 1800.0).get("accelerator_hours") == hours
