"""[Contract] Our loop (DeepSpeed, micro-batches, packs) does what thirty lines of plain torch do, step by step.

Every setting of the optimiser is at a value that shows: other betas, an eps of the gradients' size, decay, clipping in
most steps, a warm-up that does not divide the steps, a projector with a learning rate of its own.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

from llava.telemetry import Telemetry
from llava.training import worker
from llava.training.modelling import build_model_for, build_processor_for
from llava.training.training_rows import load_rows
from tests.conftest import TinyWorld
from tests.contract.plain_torch import PlainRun, train_plainly
from tests.training.jobs import make_job, result_of

SETTINGS: dict[str, Any] = {
    "max_steps": 7,
    "betas": (0.7, 0.95),
    "eps": 1e-4,
    "weight_decay": 0.3,
    "warmup_ratio": 0.3,
    "seed": 3,
    "save_every_steps": 100,
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "padded": {"packing": False, "micro_batch_size": 3, "zero_stage": 0},
    "packed": {"packing": True, "zero_stage": 2},
}
# 7 steps, warm-up over ceil(0.3 * 7) = 3 of them whose first moves by 1/4, then half a cosine over the other 4.
FACTORS = [0.25, 0.5, 0.75, 1.0, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]
PEAKS = {"pretrain": 1e-2, "finetune": 2e-3}  # of the tiny recipe
MOST_NORM = {"pretrain": 0.06, "finetune": 0.5}  # exceeded in most steps


def settings_of(stage: str) -> dict[str, Any]:
    return {**SETTINGS, "max_grad_norm": MOST_NORM[stage]}


@pytest.fixture(scope="module", params=["pretrain", "finetune"])
def plain(
    request: pytest.FixtureRequest, tiny_world: TinyWorld, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, PlainRun]:
    """The stage's run by plain torch, over the rows that the plan gives each step."""
    stage: str = request.param
    job = make_job(stage, tiny_recipe, tiny_world, tmp_path_factory.mktemp("plain"), **settings_of(stage))
    processor = build_processor_for(job)
    data = load_rows(job, processor, Telemetry(stage, "", stream=io.StringIO()), 0, 1, torch.device("cpu"))
    steps = [[data.train[int(row)] for row in data.plan.rows(step)] for step in range(len(FACTORS))]
    start = build_model_for(job, processor, torch.device("cpu"))
    return stage, train_plainly(start, stage, job.train, steps, FACTORS)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_step_and_the_weights_are_those_of_plain_torch(
    plain: tuple[str, PlainRun], layout: str, one_rank: None, tiny_world: TinyWorld, tiny_recipe: Path, tmp_path: Path
) -> None:
    stage, expected = plain
    job = make_job(stage, tiny_recipe, tiny_world, tmp_path, **settings_of(stage), **LAYOUTS[layout])
    worker.run(job)
    history = result_of(job).history
    assert [record.learning_rate for record in history] == pytest.approx([PEAKS[stage] * f for f in FACTORS], rel=1e-12)
    assert [record.loss for record in history] == pytest.approx(expected.loss, rel=1e-5)
    assert [record.grad_norm for record in history] == pytest.approx(expected.grad_norm, rel=1e-4)
    assert sum(norm > MOST_NORM[stage] for norm in expected.grad_norm) >= 3, "clipping has to take part"
    found = left_behind(stage, Path(job.output_uri))
    trained = {name for name, parameter in expected.model.named_parameters() if parameter.requires_grad}
    assert trained <= found.keys()
    for name, weights in expected.model.state_dict().items():
        if name in found:
            torch.testing.assert_close(found[name], weights, atol=2e-6, rtol=1e-4, msg=f"{name} differs")


def left_behind(stage: str, folder: Path) -> dict[str, torch.Tensor]:
    """What the run saved, by the stock class's names."""
    if stage == "finetune":
        model: Any = LlavaForConditionalGeneration.from_pretrained(folder)
        return dict(model.state_dict())
    (file,) = folder.glob("*.safetensors")
    return {f"model.{name}": tensor for name, tensor in load_file(file).items()}
