"""Accelerator hours and their price: by hand, from what kfp hands a task, and from the environment."""

from __future__ import annotations

import tempfile

import pytest

from llava.errors import SettingsError
from llava.evaluation import provenance
from llava.evaluation.run import Job
from llava.stages import evaluate as stage
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


def test_an_evaluation_reports_what_it_has_cost_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(spending.PRICE, "3")
    with spending.holding(4):
        spent = spending.spent_so_far(900)
    assert spent == {"accelerator_hours": 1.0, "cost": 3.0} and not spending.spent_so_far(900)
    lines = provenance.facts({}, {}, "own", "/r/report.html", spent)
    assert lines[-2:] == [("accelerator hours", "1.00", ""), ("cost", "3.00", "")]
    asked: list[Job] = []

    def evaluate(job: Job, telemetry: object) -> dict[str, float]:
        asked.append(job)
        return {"questions": 0.0}

    monkeypatch.setattr("llava.evaluation.run.evaluate", evaluate)
    with tempfile.TemporaryDirectory() as folder:
        outputs = stage.Outputs(predictions=f"{folder}/p", report=f"{folder}/r", metrics=f"{folder}/m")
        settings = stage.Settings(benchmark="pope", questions_uri=folder, images_uri=folder)
        with spending.holding(2):
            stage.run(settings, stage.Inputs(model=folder), outputs)
            assert asked[0].spent()["accelerator_hours"] > 0


@pytest.mark.parametrize(("device", "hours"), [("NVIDIA H100 80GB HBM3", 8.0), ("2 CPU threads", None)])
def test_a_training_stage_counts_every_rank(device: str, hours: float | None) -> None:
    result = Result(
        steps=10, resumed_from=None, world_size=16, device=device, history=[], validations=[], samples=[], numbers={},
        deepspeed_config={}, warnings=[], data_sha256="", problems=[],
    )  # fmt: skip
    assert _metrics(result, 1800.0).get("accelerator_hours") == hours
