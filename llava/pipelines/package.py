"""Compile one package, pin its images, and refuse to hand it out unless it passes the lint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llava.errors import SettingsError
from llava.pipelines.checks.lint import lint, unpinned
from llava.pipelines.graph import STAGES
from llava.pipelines.resources import ClusterOptions


def compile_package(
    build: Callable[..., Any], name: str, folder: Path, options: ClusterOptions, images: Path | None = None
) -> tuple[Path, list[str]]:
    """Write `<folder>/llava-<name>.yaml`.

    Args:
        build: the factory, `pipeline.build`.
        name: `full`, `from-<stage>` or `only-<stage>`.
        folder: made when absent.
        options: compile-time options of the cluster.
        images: a lock file other than the checkout's `images.lock.json`.

    Returns:
        The package, and the image references in it that are not pinned by digest.

    Raises:
        SettingsError: no such package, a lock file that cannot be used, or a package that fails the lint.
    """
    from kfp import compiler  # two seconds, which a wrong parameter need not wait for

    pipeline = build(name, options, read_lock(images) if images else None)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"llava-{name}.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    faults = lint(path)
    if faults:
        path.unlink()
        raise SettingsError(f"package {name} is not sound:\n  " + "\n  ".join(faults))
    return path, unpinned(path)


def read_lock(path: Path) -> dict[str, str]:
    """Stage -> image reference.

    Raises:
        SettingsError: absent, not JSON, or a stage without image.
    """
    try:
        stages = dict(json.loads(path.read_text())["stages"])
    except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"{path}: not a lock file of images ({error!r}); `python -m tools.images build --push` writes one"
        ) from error
    missing = [stage for stage in STAGES if not stages.get(stage)]
    if missing:
        raise SettingsError(f"{path}: no image for {', '.join(missing)}")
    return {stage: str(stages[stage]) for stage in STAGES}
