"""Packages compiled once a session: what `compile_package` gives, found again by what it was made from.

Compiling takes seconds and the result depends on nothing else; `test_packages.py` compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llava.pipelines.package import compile_package
from llava.pipelines.resources import ClusterOptions

_made: dict[str, tuple[bytes, list[str]]] = {}


def compile_once(
    build: Callable[..., Any], name: str, folder: Path, options: ClusterOptions, images: Path | None = None
) -> tuple[Path, list[str]]:
    """In place of `compile_package`, errors included."""
    lock = images.read_text() if images is not None and images.is_file() else images
    key = repr((build, name, options, lock))
    if key not in _made:
        path, loose = compile_package(build, name, folder, options, images)
        _made[key] = path.read_bytes(), loose
    text, loose = _made[key]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"llava-{name}.yaml"
    path.write_bytes(text)
    return path, list(loose)
