"""[Contract] Compiled layers train as the others do: losses to 1e-5, weights to 2e-5.

Compiled kernels join operations and so round in another place; the tolerance is for that alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.telemetry import Telemetry
from llava.training.engine import Engine
from llava.training.modelling import build_model_for, build_processor_for
from llava.training.training_rows import load_rows
from tests.conftest import TinyWorld
from tests.training.jobs import make_job

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_rank"),
    pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile on CPU needs g++, which is not installed"),
]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def train(stage: str, recipe: Path, world: TinyWorld, out: Path, **fields: Any) -> tuple[list[float], dict[str, Any]]:
    """Losses of three steps and the weights after them."""
    job = make_job(stage, recipe, world, out, max_steps=3, **fields)
    processor = build_processor_for(job)
    rows = load_rows(job, processor, Telemetry(stage, "test", rank=1), 0, 1, torch.device("cpu"))
    model = build_model_for(job, processor, torch.device("cpu"))
    engine = Engine(model, job.train, 1)
    engine.train()
    losses = []
    for work in rows.batches(0):
        last = len(work.micro_batches) - 1
        shares = [engine.micro(b, work.supervised, last=i == last) for i, b in enumerate(work.micro_batches)]
        engine.update(1.0)
        losses.append(float(sum(shares)))
    with engine.whole(list(model.parameters())):
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    engine.close()
    return losses, weights


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    # No dropout: compiled code draws other random numbers.
    "padded, checkpointed, LoRA": (
        "finetune",
        {"activation_checkpoint_every_n_layers": 1, "lora": {"r": 4, "alpha": 8, "dropout": 0.0}},
    ),
    "packed": ("finetune", {"packing": True}),
    "stage 1, ZeRO 3": ("pretrain", {"packing": True, "zero_stage": 3}),
}


@pytest.mark.parametrize("name", CASES)
def test_compiled_is_eager(name: str, tiny_recipe: Path, tiny_world: TinyWorld, tmp_path: Path) -> None:
    stage, fields = CASES[name]
    eager_losses, eager = train(stage, tiny_recipe, tiny_world, tmp_path / "eager", **fields)
    counters = torch._dynamo.utils.counters
    assert not counters["stats"]["unique_graphs"]
    losses, weights = train(stage, tiny_recipe, tiny_world, tmp_path / "compiled", **fields, compile=True)
    assert counters["stats"]["unique_graphs"], "nothing was compiled"
    assert losses == pytest.approx(eager_losses, abs=1e-5)
    assert weights.keys() == eager.keys()
    for key, value in weights.items():
        torch.testing.assert_close(value, eager[key], atol=2e-5, rtol=1e-4, msg=lambda text, key=key: f"{key}: {text}")
