"""[Contract] A run that is killed (kill -9, anywhere in a step) and started again ends as if nothing had been.

Bitwise: every loss of the whole run and every byte of the written weights.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from llava.errors import SettingsError
from llava.training import checkpoints, launch
from llava.training.job import Job, Result
from tests.conftest import TinyWorld
from tests.training.jobs import kill_after, logged_steps, losses, make_job, result_of, run_together, start, weights_of

pytestmark = pytest.mark.slow

LORA = {"r": 4, "alpha": 8, "dropout": 0.1}
CASES: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    # name: stage, ranks, step after which it is killed, recipe
    "stage 1, one rank, padded": ("pretrain", 1, 5, {}),
    "stage 1, two ranks, packed": ("pretrain", 2, 3, {"packing": True}),
    "stage 2, one rank, packed": ("finetune", 1, 3, {"packing": True}),
    "stage 2, two ranks, packed, LoRA with dropout": (
        "finetune",
        2,
        5,
        {"packing": True, "lora": LORA, "zero_stage": 1},
    ),
    "stage 2, two ranks, ZeRO 3 with all on the host": (
        "finetune",
        2,
        3,
        {"zero_stage": 3, "offload_optimizer": True, "offload_parameters": True},
    ),
    "stage 1, one rank, images prepared on the device, validation": (
        "pretrain",
        1,
        5,
        {"packing": True, "device_preprocess": True, "validation_rows": 8, "validate_every_steps": 4},
    ),
}


COMMON: dict[str, Any] = {"max_steps": 24, "save_every_steps": 2}


@pytest.fixture(scope="module")
def uninterrupted(
    tiny_world: TinyWorld, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Job, Result]]:
    """Every case run to its end; those of one number of ranks in the same processes."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    done: dict[str, tuple[Job, Result]] = {}
    for ranks in (1, 2):
        jobs = {
            name: make_job(stage, tiny_recipe, tiny_world, folder / name, **COMMON, **fields)
            for name, (stage, wanted, _, fields) in CASES.items()
            if wanted == ranks
        }
        results = run_together(list(jobs.values()), ranks, folder)
        done |= dict(zip(jobs, zip(jobs.values(), results, strict=True), strict=True))
    return done


def test_another_run_goes_on_where_one_was_stopped(
    tiny_world: TinyWorld, tiny_recipe: Path, tmp_path: Path, uninterrupted: dict[str, tuple[Job, Result]]
) -> None:
    whole, reference = uninterrupted["stage 1, one rank, padded"]
    stopped = tmp_path / "stopped"
    shutil.copytree(whole.checkpoints_uri, stopped)
    checkpoints.remove(str(stopped), COMMON["max_steps"])
    (step,) = checkpoints.list_steps(str(stopped))
    for name in ("first", "retried"):  # the second time it has checkpoints of its own
        job = make_job("pretrain", tiny_recipe, tiny_world, tmp_path / "other", **COMMON)
        job = job.model_copy(update={"resume_uri": str(stopped)})
        result = launch.launch(job, 1)
        assert result.resumed_from == (step if name == "first" else COMMON["max_steps"])
        assert losses(result) == losses(reference)
        assert weights_of(job) == weights_of(whole)
    job = make_job("pretrain", tiny_recipe, tiny_world, tmp_path / "third", **COMMON)
    with pytest.raises(SettingsError, match="resume_uri: no checkpoint that can be used in /no/such/folder"):
        launch.launch(job.model_copy(update={"resume_uri": "/no/such/folder"}), 1)


@pytest.mark.parametrize("name", CASES)
def test_killed_and_resumed_is_uninterrupted(
    name: str, uninterrupted: dict[str, tuple[Job, Result]], tiny_world: TinyWorld, tiny_recipe: Path, tmp_path: Path
) -> None:
    stage, ranks, kill_step, fields = CASES[name]
    whole, reference = uninterrupted[name]
    broken = make_job(stage, tiny_recipe, tiny_world, tmp_path / "broken", **COMMON, **fields)
    log = tmp_path / "log.jsonl"
    kill_after(start(broken, ranks, log), broken, log, kill_step)
    assert not Path(broken.output_uri, "manifest.json").exists()
    assert not Path(broken.result_uri).exists()
    saved = checkpoints.list_steps(broken.checkpoints_uri)
    assert 0 < saved[-1] < COMMON["max_steps"]

    process = start(broken, ranks, log)
    assert process.wait(timeout=300) == 0
    result = result_of(broken)
    assert result.resumed_from == saved[-1]
    assert losses(result) == losses(reference)
    assert result.validations == reference.validations
    assert [record.grad_norm for record in result.history] == [record.grad_norm for record in reference.history]
    assert weights_of(broken) == weights_of(whole)
    repeated = logged_steps(log)
    assert repeated[repeated.index(kill_step) :].count(saved[-1]) <= 1  # nothing before the checkpoint was done again
