"""Golden copies of every compiled package: ``python -m tests.pipelines.golden`` writes them again.

A difference is not a fault, but it is what every user's cluster will see: look at it in the change that makes it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

import pipeline
from llava.pipelines.graph import STAGES, package_names
from llava.pipelines.resources import ClusterOptions
from tests.compile_once import compile_once

FOLDER = Path(__file__).parent / "golden"


def compiled(name: str, folder: Path) -> list[dict[str, Any]]:
    """A package as documents, with images that do not depend on what was built last and without kfp's own version."""
    lock = folder / "lock.json"
    images = ", ".join(f'"{stage}": "registry.example/llava-{stage}@sha256:{"0" * 64}"' for stage in STAGES)
    lock.write_text(f'{{"stages": {{{images}}}}}')
    path, _ = compile_once(pipeline.build, name, folder, ClusterOptions(), lock)
    documents = list(yaml.safe_load_all(path.read_text()))
    documents[0].pop("sdkVersion", None)
    return documents


def dump(documents: list[dict[str, Any]]) -> str:
    """YAML as it lies in the golden files."""
    return yaml.safe_dump_all(documents, sort_keys=True, width=120, allow_unicode=True)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for package in package_names():
            (FOLDER / f"{package}.yaml").write_text(dump(compiled(package, Path(scratch))))
