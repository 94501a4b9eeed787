"""A run's checkpoints, written by the real writer, answer a benchmark one after the other; the same command resumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from llava import cli
from llava.config import load_recipe
from tests.conftest import TinyWorld
from tests.model.test_merge import trained_model, write_checkpoint

pytestmark = pytest.mark.slow  # a model is built and asked for each checkpoint


def test_a_run_s_history(
    tiny_recipe: Path, tiny_world: TinyWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, checkpoints, out = load_recipe(str(tiny_recipe)), tmp_path / "checkpoints", tmp_path / "out"
    model = trained_model(recipe, "finetune")
    for step in (2, 10, 30):
        write_checkpoint(model, recipe, "finetune", str(checkpoints), step)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and "proj" in name:
                    parameter.mul_(3)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def evaluated(*more: str) -> tuple[int, str]:
        command = ["evaluate", "checkpoints", "--checkpoints", str(checkpoints), "--recipe", str(tiny_recipe)]
        command += ["--questions-uri", str(tiny_world.questions), "--images-uri", tiny_world.images_uri]
        command += ["--max-new-tokens", "4", "--limit", "12", "--scratch", str(scratch), "--out", str(out)]
        with pytest.raises(SystemExit) as done:
            cli.main([*command, *more])
        said = capsys.readouterr()
        return int(done.value.code or 0), said.out + said.err

    code, said = evaluated("--steps", "2,10")
    assert code == 0 and "10 - 2" in said and list(scratch.iterdir()) == []
    first = (out / "step-00000002/predictions/finetuned.jsonl").read_bytes()
    assert first.count(b"\n") == 12
    page = (out / "step-00000010/report.html").read_text()
    assert str(checkpoints / "step-00000010") in page  # where the model came from, although it is gone
    code, said = evaluated()
    assert code == 0 and "step 2: answered already" in said and "step 10: answered already" in said
    pairs = json.loads((out / "history/comparison.json").read_text())["differences"]
    assert [(pair["model"], pair["other"]) for pair in pairs] == [("10", "2"), ("30", "10")]
    assert (out / "step-00000002/predictions/finetuned.jsonl").read_bytes() == first
    answers = {(out / f"step-{step:08d}/predictions/finetuned.jsonl").read_bytes() for step in (2, 10, 30)}
    assert len(answers) == 3 and "over checkpoints" in (out / "history/report.html").read_text()
    code, said = evaluated("--steps", "2,7")
    assert code == 2 and "no checkpoint of step 7; there are: 2, 10, 30" in said
    code, said = evaluated("--benchmark", "pope", "--questions-uri", str(tmp_path), "--steps", "30")
    assert code == 2 and "not all of" in said
