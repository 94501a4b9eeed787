"""The example notebook: of the published form, without outputs, and its cells run one after the other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TinyWorld
from tests.hub_model import HubModel, hub_model

__all__ = ["hub_model"]
NOTEBOOK = Path(__file__).parents[1] / "docs/first-model.ipynb"


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return found


def test_it_is_a_notebook_without_anybodys_outputs() -> None:
    whole = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (whole["nbformat"], whole["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in whole["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in whole["cells"]:
        assert cell["cell_type"] in ("markdown", "code") and isinstance(cell["source"], list)
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert [cell["metadata"].get("tags") for cell in cells() if cell["metadata"]] == [["parameters"]]


@pytest.mark.slow
def test_its_cells_run(hub_model: HubModel, tiny_world: TinyWorld, tiny_recipe: Path, tmp_path: Path) -> None:
    """As a kernel does: one namespace, cell after cell, with the parameters of a small world behind their own cell."""
    parameters = {
        "MODEL": str(hub_model.model), "ROWS": str(tiny_world.instruct_json), "IMAGES": tiny_world.images_uri,
        "QUESTIONS": str(tiny_world.questions), "OUT": str(tmp_path / "out"), "RECIPE": str(tiny_recipe), "STEPS": 2,
    }  # fmt: skip
    script = []
    for cell in cells():
        if cell["cell_type"] == "code":
            script.append("".join(cell["source"]))
        if cell["metadata"].get("tags") == ["parameters"]:
            assert all(f"{name} = " in script[-1] for name in parameters)
            script += [f"{name} = {value!r}" for name, value in parameters.items()]
    script.append("assert 'accuracy' in found.metrics, found.metrics")
    # The tiny world keeps its images by split, so the first one lies deeper than in a folder of photographs.
    text = "\n\n".join(script).replace("Path(IMAGES).iterdir()", "Path(IMAGES).rglob('*')")
    (tmp_path / "cells.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "cells.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out/export/onnx/onnx/vision_encoder.onnx").exists()
    assert len(done.stdout.strip().splitlines()) > 5
