"""The images by name, from the bake file (JSON form) that `docker buildx bake` reads too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.images.dockerfile import expand

BAKE_FILE = Path("images/docker-bake.json")


@dataclass(frozen=True)
class Image:
    """One image to build.

    Attributes:
        name: target of the bake file (`light`).
        repository: image name without registry and tag (`llava-light`).
        target: stage of the Dockerfile.
        arguments: build arguments, variables replaced.
        stages: pipeline stages that run in it.
    """

    name: str
    repository: str
    target: str
    dockerfile: Path
    arguments: dict[str, str]
    labels: dict[str, str]
    stages: tuple[str, ...]


def load_images(root: Path, variables: Mapping[str, str]) -> dict[str, Image]:
    """The default group's images.

    Args:
        root: the checkout.
        variables: values for the bake file's variables (usually the environment), the file's defaults elsewhere; one
            that is set but empty is empty, as `docker buildx bake` has it.
    """
    bake = json.loads((root / BAKE_FILE).read_text())
    values = {name: variables.get(name, spec.get("default", "")) for name, spec in bake["variable"].items()}
    images = {}
    for name in bake["group"]["default"]["targets"]:
        spec = _merged(bake["target"], name)
        labels = {key: expand(value, values) for key, value in spec["labels"].items()}
        images[name] = Image(
            name=name,
            repository=expand(spec["tags"][0], {**values, "REGISTRY": "", "TAG": ""}).rstrip(":"),
            target=spec["target"],
            dockerfile=Path(spec["dockerfile"]),
            arguments={key: expand(value, values) for key, value in spec["args"].items()},
            labels=labels,
            stages=tuple(labels["io.llava.stages"].split()),
        )
    return images


def _merged(targets: Mapping[str, Any], name: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    spec = targets[name]
    for layer in [*(_merged(targets, parent) for parent in spec.get("inherits", [])), spec]:
        for key, value in layer.items():
            result[key] = {**result.get(key, {}), **value} if isinstance(value, dict) else value
    return result
