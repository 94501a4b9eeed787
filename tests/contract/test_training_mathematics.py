"""[Contract] Ranks, ZeRO stages, packing and accumulation change speed and memory, never the numbers.

All variants of a world size run one after the other in the same processes, so that imports are paid for once.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llava.training.job import Job, Result
from tests.conftest import TinyWorld
from tests.training.jobs import losses, make_job, run_together, weights_of

pytestmark = pytest.mark.slow

STEPS = 6
VARIANTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one rank": (1, {}),
    "one rank, packed": (1, {"packing": True}),
    "one rank, row by row": (1, {"micro_batch_size": 1}),
    "two ranks": (2, {}),
    "two ranks, packed": (2, {"packing": True}),
    # Half of the rows have no image: with one row a micro-batch, ranks often disagree about having one.
    "two ranks, row by row": (2, {"micro_batch_size": 1}),
    "ZeRO 1": (2, {"zero_stage": 1}),
    "ZeRO 2": (2, {"zero_stage": 2, "packing": True, "save_every_steps": 2, "keep_checkpoints": 9}),
    "ZeRO 3": (2, {"zero_stage": 3, "micro_batch_size": 1}),
    "ZeRO 2, optimiser on the host": (2, {"zero_stage": 2, "offload_optimizer": True}),
    "ZeRO 3, all on the host": (2, {"zero_stage": 3, "offload_optimizer": True, "offload_parameters": True}),
}


@pytest.fixture(scope="module")
def mixed_world(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """The tiny world's instruction rows, every second one without its image."""
    rows = json.loads(tiny_world.instruct_json.read_text())
    for row in rows[::2]:
        row.pop("image", None)
        for turn in row["conversations"]:
            turn["value"] = turn["value"].replace("<image>\n", "")
    path = tmp_path_factory.mktemp("mixed") / "rows.json"
    path.write_text(json.dumps(rows))
    return replace(tiny_world, instruct_json=path)


@pytest.fixture(scope="module")
def runs(
    mixed_world: TinyWorld, odd_world: TinyWorld, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Job, Result]]:
    """Every variant, run; and three runs that resume from the checkpoints of the ZeRO 2 one."""
    folder = tmp_path_factory.mktemp("mathematics")
    jobs = {
        name: make_job("finetune", tiny_recipe, mixed_world, folder / name, max_steps=STEPS, **fields)
        for name, (_, fields) in VARIANTS.items()
    }
    done: dict[str, tuple[Job, Result]] = {}
    two = [name for name, (ranks, _) in VARIANTS.items() if ranks == 2]
    done |= zip(
        two, zip([jobs[n] for n in two], run_together([jobs[n] for n in two], 2, folder), strict=True), strict=True
    )
    one = [name for name, (ranks, _) in VARIANTS.items() if ranks == 1]
    extra = {
        "two ranks to one": _go_on(jobs["ZeRO 2"], folder / "2 to 1", tiny_recipe, mixed_world, keep=[2]),
        "damaged": _go_on(jobs["ZeRO 2"], folder / "damaged", tiny_recipe, mixed_world, keep=[2, 4], damage=4),
    }
    odd: dict[str, dict[str, Any]] = {"odd sizes": {}, "odd sizes, on the device": {"device_preprocess": True}}
    extra |= {
        name: make_job("finetune", tiny_recipe, odd_world, folder / name, max_steps=STEPS, packing=True, **fields)
        for name, fields in odd.items()
    }
    both = {**{name: jobs[name] for name in one}, **extra}
    results = run_together(list(both.values()), 1, folder)
    return done | dict(zip(both, zip(both.values(), results, strict=True), strict=True))


def _go_on(
    source: Job, out: Path, recipe: Path, world: TinyWorld, *, keep: list[int], damage: int | None = None
) -> Job:
    for step in keep:
        name = f"step-{step:08d}"
        shutil.copytree(Path(source.checkpoints_uri) / name, out / "checkpoints" / name)
    if damage is not None:
        victim = out / "checkpoints" / f"step-{damage:08d}" / "fragments-00001.safetensors"
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 0x10
        victim.write_bytes(data)
    return make_job("finetune", recipe, world, out, max_steps=STEPS)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "one rank"])
def test_losses_and_weights_are_those_of_one_padded_rank(runs: dict[str, tuple[Job, Result]], name: str) -> None:
    reference, result = runs["one rank"], runs[name]
    assert len(losses(result[1])) == STEPS
    assert losses(result[1]) == pytest.approx(losses(reference[1]), abs=2e-6)
    assert_same_weights(result[0], reference[0])


def test_images_prepared_on_the_device_train_alike(runs: dict[str, tuple[Job, Result]]) -> None:
    """Pixels within two levels of 255, hardly one in a hundred different at all: losses to 1e-4, and not to the bit."""
    (_, host), (_, device) = runs["odd sizes"], runs["odd sizes, on the device"]
    assert losses(device) == pytest.approx(losses(host), abs=1e-4)
    assert losses(device) != losses(host)


def test_the_loss_falls(runs: dict[str, tuple[Job, Result]]) -> None:
    first, *_, last = losses(runs["one rank"][1])
    assert last < first - 0.1


def test_two_ranks_saw_the_same_tokens(runs: dict[str, tuple[Job, Result]]) -> None:
    tokens = {name: [record.tokens for record in runs[name][1].history] for name in VARIANTS}
    assert all(counts == tokens["one rank"] for counts in tokens.values())


def test_packing_leaves_no_padding(runs: dict[str, tuple[Job, Result]]) -> None:
    assert runs["one rank, packed"][1].numbers["padding_share"] == 0.0
    assert runs["one rank"][1].numbers["padding_share"] > 0.0


def test_another_world_size_goes_on_with_the_same_rows(runs: dict[str, tuple[Job, Result]]) -> None:
    job, result = runs["two ranks to one"]
    assert result.resumed_from == 2
    assert result.world_size == 1
    reference_job, reference = runs["one rank"]
    assert [r.tokens for r in result.history] == [r.tokens for r in reference.history]
    assert losses(result) == pytest.approx(losses(reference), abs=2e-6)
    assert_same_weights(job, reference_job)


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(runs: dict[str, tuple[Job, Result]]) -> None:
    job, result = runs["damaged"]
    assert result.resumed_from == 2
    assert any("step 4 cannot be used" in warning and "damaged" in warning for warning in result.warnings)
    assert weights_of(job) == weights_of(runs["two ranks to one"][0])


def assert_same_weights(left: Job, right: Job) -> None:
    a, b = (load_file(Path(job.output_uri) / "model.safetensors") for job in (left, right))
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], atol=2e-5, rtol=1e-4, msg=partial("{}: {}".format, key))
