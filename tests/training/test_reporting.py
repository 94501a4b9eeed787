"""The report of a training run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llava.training import reporting
from llava.training.job import Problem, Result, Sample, StepRecord, Validation
from tests.conftest import TinyWorld
from tests.training.jobs import make_job


def record(step: int, **fields: object) -> StepRecord:
    whole = {"step": step, "loss": 5.0 / step, "learning_rate": 1e-3, "tokens": 100, "padding": 0.1, "seconds": 0.5}
    return StepRecord.model_validate({**whole, **fields})


@pytest.fixture
def result() -> Result:
    problem = Problem(file="rows.json", row=7, field="image", problem="image-missing", message="row 7: <b>gone</b>.jpg")
    sample = {"record_id": "a", "images": [], "question": "<image>\nWhat?", "expected": "A red circle."}
    return Result(
        steps=30,
        resumed_from=10,
        world_size=2,
        device="2 CPU threads",
        history=[record(step, grad_norm=1.0 / step, spike=step == 20) for step in range(1, 31)],
        validations=[Validation(step=15, loss=2.0), Validation(step=30, loss=1.0)],
        samples=[Sample(step=15, answer="blue", **sample), Sample(step=30, answer="<script>red</script>", **sample)],
        numbers={},
        deepspeed_config={"zero_optimization": {"stage": 2}},
        warnings=["the checkpoint of step 12 cannot be used"],
        data_sha256="0" * 64,
        problems=[problem],
    )


def test_the_page_tells_the_whole_run(tiny_recipe: Path, tiny_world: TinyWorld, tmp_path: Path, result: Result) -> None:
    job = make_job("finetune", tiny_recipe, tiny_world, tmp_path)
    numbers = {
        "final_loss": 0.17,
        "tokens_per_second": 200.0,
        "data_wait_share": 0.1,
        "padding_share": 0.1,
        "seconds": 9.0,
    }
    page = reporting.build_report(job, result, numbers).html()
    for part in (
        "finetune: test-tiny",
        "Resumed from the checkpoint of step 10",
        "step 12 cannot be used",
        "The loss jumped at step 20",
        "image-missing",
        "step 15: blue",
        "zero_optimization",
    ):
        assert part in page, part
    assert "<script>red" not in page
    assert "<b>gone" not in page


def test_a_spike_of_a_long_run_is_in_the_chart(
    tiny_recipe: Path, tiny_world: TinyWorld, tmp_path: Path, result: Result
) -> None:
    """5,198 steps: every sixth of them would leave out step 5,002."""
    job = make_job("finetune", tiny_recipe, tiny_world, tmp_path)
    history = [record(step, loss=51.0 if step == 5002 else 1.0) for step in range(1, 5199)]
    metrics = {"final_loss": 1.0, "padding_share": 0.0, "seconds": 5.0}
    page = reporting.build_report(job, result.model_copy(update={"history": history, "validations": []}), metrics)
    line = page.html().partition('<polyline class="line" points="')[2].partition('"')[0]
    heights = [float(pair.split(",")[1]) for pair in line.split()]
    assert 100 < len(heights) <= 1000
    assert sum(height < min(heights) + 20 for height in heights) == 1, "one point at the top, the others at the bottom"


def test_rows_left_out_are_listed(tmp_path: Path, result: Result) -> None:
    reporting.write_problems(str(tmp_path / "left-out.jsonl"), result.problems)
    (line,) = (tmp_path / "left-out.jsonl").read_text().splitlines()
    assert json.loads(line)["problem"] == "image-missing"
