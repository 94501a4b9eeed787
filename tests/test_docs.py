"""Every code block of README and docs: data parses, commands have the options they show, the tutorial runs.

A block of commands that are other programs' (kubectl, docker, npm, ...) or that need a cluster, a GPU or data from
elsewhere is not run; its commands of ours are read by the very command line they are for.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.main import get_command

import pipeline
from llava import cli
from llava.pipelines.commands import make_app

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_OURS = re.compile(r"^(?:\S*/)?(?:llava|(?:python3? )?(?:\S*/)?pipeline\.py)(?= )")


@dataclass(frozen=True)
class Block:
    page: str
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        for number, (language, text) in enumerate(_FENCE.findall(page.read_text()), start=1):
            found.append(Block(page.name, number, language, text))
    return found


def commands(text: str) -> Iterator[str]:
    """The commands of ours in a block, one a line, continued lines joined."""
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"^\s*\$ ", "", line).strip()
        line = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line)
        if _OURS.match(line):
            yield line


def understood(line: str) -> None:
    """Read a command by the command line it is for; nothing runs."""
    words = shlex.split(line.replace("…", "..."), comments=True)
    words = [word for word in words if word not in ("...", "[...]")]
    while words[0] != "llava" and not words[0].endswith(("pipeline.py", "/llava")):
        words.pop(0)
    program, *rest = words
    if program.endswith("pipeline.py"):
        command: Any = get_command(make_app(pipeline.build, pipeline.small_world))
    else:
        command = get_command(cli.make_app(next((word for word in rest if not word.startswith("-")), None)))
    context = command.make_context(program, [], resilient_parsing=True)
    while getattr(command, "commands", None) and rest and not rest[0].startswith("-") and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
        context = command.make_context(command.name, [], parent=context, resilient_parsing=True)
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    if getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
        pytest.fail(f"{line}: no command {rest[0]!r}; known: {', '.join(command.commands)}")
    for word in rest:
        option = word.partition("=")[0]
        if option.startswith("--") and option not in {*known, "--help"}:
            pytest.fail(f"{line}: no option {option}; known: {', '.join(sorted(known))}")


@pytest.mark.parametrize("block", [block for block in blocks() if block.language], ids=str)
def test_a_block_is_what_it_says(block: Block) -> None:
    if block.language == "json":
        decoder, rest = json.JSONDecoder(), block.text.strip()
        while rest:
            _, end = decoder.raw_decode(rest)
            rest = rest[end:].strip()
    elif block.language in ("yaml", "yml"):
        assert list(yaml.safe_load_all(block.text))
    elif block.language == "csv":
        rows = list(csv.reader(io.StringIO(block.text)))
        assert len({len(row) for row in rows}) == 1 and len(rows) > 1
    elif block.language == "python":
        ast.parse(block.text)
    else:
        assert block.language in ("sh", "bash", "text", "toml", "promql", "console", "dockerfile"), block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_has_the_options_it_shows(page: Path) -> None:
    for block in blocks():
        if block.page == page.name and block.language in ("", "sh", "bash", "console"):
            for line in commands(block.text):
                understood(line)


def test_commands_are_found_and_wrong_ones_told() -> None:
    text = "A=1 llava plan --recipe x \\\n  --gpu h200\nkubectl get pods\npython pipeline.py run --params run.yaml\n"
    assert [line.split()[0] for line in commands(text)] == ["llava", "python"]
    for wrong in ("llava plan --recip x", "python pipeline.py run --parms x", "llava data chek --data x"):
        with pytest.raises(pytest.fail.Exception):
            understood(wrong)
    assert sum(len(list(commands(block.text))) for block in blocks()) > 30


@pytest.mark.slow
def test_the_tutorial_runs_as_it_is_typed(tmp_path: Path) -> None:
    """docs/own-data.md from an empty directory: its own commands, on 30 photographs, two steps a stage."""
    (tmp_path / "photos").mkdir()
    lines = ["image,caption"]
    for number in range(1, 31):
        size = [(1600, 1200), (900, 1200), (640, 480)][number % 3]
        Image.effect_noise(size, 60).convert("RGB").save(tmp_path / f"photos/IMG_{number:04d}.jpg")
        lines.append(f"IMG_{number:04d}.jpg,A photograph of {['a cat', 'a red car', 'two dogs'][number % 3]} outside.")
    (tmp_path / "captions.csv").write_text("\n".join(lines) + "\n")
    python = Path(sys.executable)
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}
    said = ""
    shell = [block for block in blocks() if block.page == "own-data.md" and block.language == "sh"]
    assert len(shell) == 4
    for block in shell[:3]:  # the fourth is the second again from rows
        text = block.text.replace("--steps 40", "--steps 2").replace(" pipeline.py", f" {PROJECT / 'pipeline.py'}")
        done = subprocess.run(
            ["bash", "-euc", text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        said = done.stdout
    assert said.strip(), "the model answered"
    for name in ("model/config.json", "onnx", "report.html", "summary.json"):
        assert (tmp_path / "runs/mine" / name).exists()
