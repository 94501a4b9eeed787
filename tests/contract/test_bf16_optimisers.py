"""[Contract] DeepSpeed has one optimiser for bf16 under ZeRO 1 and others under 2 and 3: all train alike.

Two ranks, several micro-batches a step. Gradients join their fp32 sums in another order, in bf16 before that: losses
agree to 1e-3 where they fall by more than 0.1.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TinyWorld
from tests.training.jobs import losses, make_job, run_together

pytestmark = pytest.mark.slow


def test_zero_1_2_and_3_in_bf16(tiny_recipe: Path, tiny_world: TinyWorld, tmp_path: Path) -> None:
    jobs = [
        make_job(
            "finetune",
            tiny_recipe,
            tiny_world,
            tmp_path / f"zero-{stage}",
            max_steps=6,
            precision="bf16",
            zero_stage=stage,
            micro_batch_size=2,
        )
        for stage in (1, 2, 3)
    ]
    first, *others = [losses(result) for result in run_together(jobs, 2, tmp_path)]
    assert first[-1] < first[0] - 0.1
    for other in others:
        assert other == pytest.approx(first, abs=1e-3)
