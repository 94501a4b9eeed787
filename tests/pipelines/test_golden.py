"""The compiled packages are the golden ones, key for key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llava.pipelines.graph import package_names
from tests.pipelines.golden import FOLDER, compiled, dump


def test_there_is_a_golden_copy_of_each_package_and_of_no_other() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(package_names())


@pytest.mark.slow
@pytest.mark.parametrize("name", package_names())
def test_a_package_is_its_golden_copy(name: str, tmp_path: Path) -> None:
    golden = list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))
    now = list(yaml.safe_load_all(dump(compiled(name, tmp_path))))
    assert now == golden, "look at the difference, then write it: python -m tests.pipelines.golden"


def test_no_description_carries_a_line_break() -> None:
    """They are shown in the UI and written into files of parameters."""
    for path in FOLDER.glob("*.yaml"):
        for text in descriptions(list(yaml.safe_load_all(path.read_text()))):
            assert text == " ".join(text.split()), path.name


def descriptions(node: Any) -> Iterator[str]:
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
        yield from descriptions(value)
    if isinstance(node, dict) and isinstance(node.get("description"), str):
        yield node["description"]
