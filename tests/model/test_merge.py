"""`llava merge`: a checkpoint, written by the real writer, becomes a hub directory that answers the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.config import LoraRecipe, Recipe, load_recipe
from llava.model import lora, saving
from llava.model.build import build_model
from llava.model.forward import supervised_logits
from llava.model.freezing import set_trainable
from tests.model.batches import make_row, packed
from tests.model.test_saving import GOLDEN, keys_of

pytestmark = pytest.mark.slow  # each call builds a model as a command of its own would
LORA = {"finetune.lora": {"r": 4, "alpha": 8, "dropout": 0.0}}


def trained_model(recipe: Recipe, stage: Any) -> Any:
    """The recipe's model with everything the stage trains moved by a fixed amount."""
    from llava.model.special_tokens import load_tokenizer

    model: Any = build_model(recipe.model, tokenizer=load_tokenizer(recipe.model.language_model))
    adapters: LoraRecipe | None = recipe.finetune.lora if stage == "finetune" else None
    if adapters is not None:
        lora.add_lora(model, adapters)
    set_trainable(model, stage)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def write_checkpoint(model: Any, recipe: Recipe, stage: Any, uri: str, step: int, ranks: int = 2) -> None:
    """As a run of `ranks` ranks under ZeRO-1 or 2 writes it: each its half of every parameter."""
    from llava.training.checkpoints import CheckpointWriter
    from llava.training.fragments import MOMENTS, Fragment
    from llava.training.snapshots import take_snapshot
    from llava.training.state import Identity, RunState, mathematics

    identity = Identity(stage=stage, recipe=mathematics(getattr(recipe, stage)), data="d", frozen="f", steps=10)
    for rank in reversed(range(ranks)):
        fragments = []
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            flat = parameter.detach().float().flatten()
            low, high = rank * len(flat) // ranks, (rank + 1) * len(flat) // ranks
            moments = {moment: torch.zeros(high - low) for moment in MOMENTS}
            fragments.append(
                Fragment(name, tuple(parameter.shape), low, high - low, flat[low:high], moments, shared=False)
            )
        writer = CheckpointWriter(uri, rank=rank, world_size=ranks, zero_stage=1, save_id="s", keep=5)
        writer.save(step, take_snapshot(fragments, rank, ranks), RunState(identity=identity).model_dump(mode="json"))
        writer.wait()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    from llava.cli import main

    try:
        main(["merge", *arguments])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("overrides", [LORA, {}], ids=["lora", "whole"])
def test_the_merged_model_is_the_trained_one(
    overrides: dict[str, Any], tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe(str(tiny_recipe), overrides)
    model = trained_model(recipe, "finetune")
    write_checkpoint(model, recipe, "finetune", str(tmp_path / "checkpoints"), 4)
    arguments = [
        "--checkpoints",
        str(tmp_path / "checkpoints"),
        "--recipe",
        str(tiny_recipe),
        "--out",
        str(tmp_path / "m"),
    ]
    code, out, err = run(capsys, *arguments, "--overrides", json.dumps(overrides))
    assert code == 0, err
    assert "checkpoint of step 4" in out
    assert keys_of(tmp_path / "m") == json.loads(GOLDEN.read_text())["llava"]
    merged = saving.load_model(str(tmp_path / "m"))
    batch = packed([make_row(model, text=20, seed=1), make_row(model, text=9, seed=2)])
    with torch.no_grad():
        torch.testing.assert_close(supervised_logits(merged, batch), supervised_logits(model, batch), rtol=0, atol=1e-5)


def test_a_stage_1_checkpoint_gives_its_projector(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe(str(tiny_recipe))
    model = trained_model(recipe, "pretrain")
    write_checkpoint(model, recipe, "pretrain", str(tmp_path / "c"), 2, ranks=1)
    arguments = ["--checkpoints", str(tmp_path / "c"), "--recipe", str(tiny_recipe), "--out", str(tmp_path / "p")]
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert "is of stage pretrain; pass --stage pretrain" in err
    code, _, err = run(capsys, *arguments, "--stage", "pretrain")
    assert code == 0, err
    fresh = trained_model(recipe, "pretrain")
    with torch.no_grad():
        fresh.model.multi_modal_projector.linear_1.weight.zero_()
    saving.load_projector(fresh, str(tmp_path / "p"))
    assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), model.state_dict().values(), strict=True))


def test_wrong_checkpoints_are_refused(tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe(str(tiny_recipe), LORA)
    folder = tmp_path / "c"
    arguments = ["--checkpoints", str(folder), "--recipe", str(tiny_recipe), "--out", str(tmp_path / "m")]
    folder.mkdir()
    assert "there are: none" in run(capsys, *arguments)[2]
    write_checkpoint(trained_model(recipe, "finetune"), recipe, "finetune", str(folder), 4)
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert "finetune.lora is null, but the checkpoint was trained with {" in err
    right = [*arguments, "--overrides", json.dumps(LORA)]
    assert "no checkpoint of step 9; there are: 4" in run(capsys, *right, "--step", "9")[2]
    assert "dtype: found 'int3'" in run(capsys, *right, "--dtype", "int3")[2]
    shard = folder / "step-00000004" / "fragments-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    code, _, err = run(capsys, *right)
    assert code == 2
    assert "damaged" in err
    assert not (tmp_path / "m").exists()
