"""Every code block of README and docs: data parses, commands have the options they show, lists of fields are true.

Commands of ours are read here by the very command line they are for; `test_docs_run.py` runs them.
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import importlib
import io
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import pipeline
from llava import cli
from llava.pipelines.commands import make_app
from tests.doc_blocks import NEEDS, PAGES, PROJECT, Block, blocks

_OURS = re.compile(r"^(?:\S*/)?(?:llava|(?:python3? )?(?:\S*/)?pipeline\.py)(?= )")


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


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_a_block_is_what_it_says(block: Block) -> None:
    assert not block.needs or block.needs in NEEDS
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
    elif block.language == "js":
        assert block.text == (PROJECT / "tests/export/consumer/padding.mjs").read_text()  # which a test runs
    else:
        assert block.language in ("sh", "text"), f"{block}: a language that no test runs; `text` is never run"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_has_the_options_it_shows(page: Path) -> None:
    for block in blocks():
        if block.page == page.name and block.language == "sh":
            for line in commands(block.text):
                understood(line)


@pytest.mark.parametrize("block", [block for block in blocks() if block.shows], ids=str)
def test_a_list_of_fields_is_the_classs(block: Block) -> None:
    module, _, name = block.shows.rpartition(".")
    shown = [
        node.target.id
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    assert shown == [field.name for field in dataclasses.fields(getattr(importlib.import_module(module), name))]


def test_commands_are_found_and_wrong_ones_told() -> None:
    text = "A=1 llava plan --recipe x \\\n  --gpu h200\nkubectl get pods\npython pipeline.py run --params run.yaml\n"
    assert [line.split()[0] for line in commands(text)] == ["llava", "python"]
    for wrong in ("llava plan --recip x", "python pipeline.py run --parms x", "llava data chek --data x"):
        with pytest.raises(pytest.fail.Exception):
            understood(wrong)
    assert sum(len(list(commands(block.text))) for block in blocks()) > 30
