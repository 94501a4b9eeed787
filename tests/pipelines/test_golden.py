"""The compiled packages are the golden ones, key for key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llava.pipelines.graph import package_names
from tests.pipelines.golden import FOLDER, compiled, dump


def test_there_is_a_golden_copy_of_each_package_and_of_no_other() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(package_names())


@pytest.mark.parametrize("name", package_names())
def test_a_package_is_its_golden_copy(name: str, tmp_path: Path) -> None:
    golden = list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))
    now = list(yaml.safe_load_all(dump(compiled(name, tmp_path))))
    assert now == golden, "look at the difference, then write it: python -m tests.pipelines.golden"
