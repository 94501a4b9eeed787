"""From an empty directory to an answer about one's own photograph: the README's own commands, with the wheel alone."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.doc_blocks import blocks
from tests.installed import build_wheel, environment, install_alone
from tests.test_docs_run import write_photographs

HERE = "import pathlib, llava; print(pathlib.Path(llava.__file__).parent)"


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute and a half of CPU; ten on a machine that has much else to do
def test_a_wheel_and_thirty_photographs_make_an_answer(tmp_path: Path) -> None:
    programs = install_alone(build_wheel(tmp_path / "wheel"), tmp_path / "venv")
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / ".venv").symlink_to(programs.parent)
    shell = environment(programs) | {"PATH": os.environ["PATH"]}  # the block itself activates
    where = subprocess.run(
        [programs / "python", "-c", HERE], cwd=folder, env=shell, capture_output=True, text=True, check=True
    )
    assert Path(where.stdout.strip()).is_relative_to(programs.parent), "not the checkout's own code"

    write_photographs(folder)
    [block] = [block for block in blocks("sh") if "llava init" in block.text and block.page == "README.md"]
    *before, chat = block.text.replace("--steps 40", "--steps 8").strip().splitlines()
    made = run("\n".join(before), folder, shell)
    assert "Traceback" not in made.stderr
    values = yaml.safe_load((folder / "run.yaml").read_text())
    assert values["images_uri"] == "photos" and values["expand_annotations_uri"] == "captions.csv"
    summary = json.loads((folder / "runs/mine/summary.json").read_text())
    assert summary["stages"]["finetune"]["metrics"]["steps"] == 8
    assert (folder / "runs/mine/report.html").exists() and (folder / "runs/mine/onnx/onnx").is_dir()
    # The last lines say how to go on, and are commands as they stand.
    [ask] = [line.split(maxsplit=2)[2] for line in made.stdout.splitlines() if line.startswith("ask it ")]
    assert ask == "llava chat --model runs/mine/model --image PICTURE" and chat.startswith(ask.removesuffix("PICTURE"))
    answered = run(f"source .venv/bin/activate\n{chat}", folder, shell)
    assert answered.stdout.strip() and "Traceback" not in answered.stderr


def run(text: str, folder: Path, shell: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["bash", "-euc", text], cwd=folder, env=shell, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{text}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done
