"""Real ranks that are killed and resume: every tracker has each step once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llava import storage
from llava.training import launch
from tests.conftest import TinyWorld
from tests.tracking.test_sinks import mlflow_client, mlflow_store, scalars  # noqa: F401  (a fixture)
from tests.training.jobs import kill_after, losses, make_job, start

STEPS = 12


@pytest.mark.slow
def test_curves_of_a_run_that_was_killed(
    tiny_recipe: Path,
    tiny_world: TinyWorld,
    tmp_path: Path,
    mlflow_store: str,  # noqa: F811
) -> None:
    job = make_job(
        "pretrain", tiny_recipe, tiny_world, tmp_path, max_steps=STEPS, save_every_steps=4, log_every_steps=1
    ).model_copy(update={"tracking": f"tensorboard, mlflow={mlflow_store}", "run": "demo"})
    log = tmp_path / "log.jsonl"
    kill_after(start(job, 2, log), job, log, 7)
    result = launch.launch(job, 2)
    assert result.resumed_from
    identities = storage.read_json(storage.join(job.checkpoints_uri, "tracking.json"))
    assert sorted(name.partition("=")[0] for name in identities) == ["mlflow", "tensorboard"]
    found = scalars(identities["tensorboard"])
    assert [step for step, _ in found["train/loss"]] == list(range(1, STEPS + 1))
    assert [value for _, value in found["train/loss"]] == pytest.approx(losses(result))
    client = mlflow_client(mlflow_store)
    run = client.get_run(identities[f"mlflow={mlflow_store}"])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [one.step for one in history] == list(range(1, STEPS + 1))
    assert [one.value for one in history] == pytest.approx(losses(result))
    assert run.info.status == "FINISHED"
    assert run.data.params["pretrain.max_steps"] == str(STEPS)
    assert run.data.metrics["summary/train_seconds"] > 0
    lines = [json.loads(line) for line in log.read_text().split("\n") if line]
    assert not any("tracking" in str(line.get("text", "")) and "fail" in str(line.get("text", "")) for line in lines)
