"""Deciding what to build, and building it with whichever Docker there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.images.bake import Image
from tools.images.registry import find_digest

# The client to call, where the first on the PATH is not the right one.
DOCKER = os.environ.get("DOCKER", "docker")


@dataclass(frozen=True)
class Step:
    """What is to be done about one image.

    Attributes:
        name: with the registry in front, without tag.
        content: the content hash, which is the tag.
        digest: of that tag in the registry (or the local image id); None: it must be built.
    """

    image: Image
    name: str
    content: str
    digest: str | None

    @property
    def tagged(self) -> str:
        """`name:content`."""
        return f"{self.name}:{self.content}"

    @property
    def reference(self) -> str:
        """`name:content@digest`; only for an image that is in the registry."""
        assert self.digest is not None
        return f"{self.tagged}@{self.digest}"


def plan(images: Mapping[str, Image], contents: Mapping[str, str], registry: str) -> list[Step]:
    """One step an image, in the bake file's order; `registry` empty: the local Docker engine is asked instead."""
    steps = []
    for image in images.values():
        name = f"{registry.rstrip('/')}/{image.repository}" if registry else image.repository
        content = contents[image.name]
        digest = find_digest(name, content) if registry else _local_id(f"{name}:{content}")
        steps.append(Step(image, name, content, digest))
    return steps


def build(
    step: Step, root: Path, *, push: bool, builder: str, more: Sequence[str] = (), also: Sequence[str] = ()
) -> None:
    """Build one image and tag it `name:content`, and with the tags of `also`.

    Args:
        builder: `buildx` adds SBOM and provenance to what it pushes; `docker` is plain `docker build`.
        more: further arguments for the build command (`--network=host`).

    Raises:
        subprocess.CalledProcessError: the build or the push failed.
    """
    tags = [step.tagged, *(f"{step.name}:{tag}" for tag in also)]
    attested = ["--push", "--sbom=true", "--provenance=mode=max"] if push else ["--load"]
    command = [DOCKER, "buildx", "build", *attested] if builder == "buildx" else [DOCKER, "build"]
    for tag in tags:
        command += ["--tag", tag]
    for name, value in sorted(step.image.arguments.items()):
        command += ["--build-arg", f"{name}={value}"]
    for name, value in sorted(step.image.labels.items()):
        command += ["--label", f"{name}={value}"]
    command += ["--file", str(step.image.dockerfile), "--target", step.image.target, *more, "."]
    # Plain `docker build` means the engine's own builder, whichever one a person has selected for buildx.
    _run(command, root, {} if builder == "buildx" else {"BUILDX_BUILDER": "default"})
    if push and builder != "buildx":
        for tag in tags:
            _run([DOCKER, "push", "--quiet", tag], root)


def choose_builder(*, push: bool) -> str:
    """`buildx` where the Docker client has it and, to push, its builder can attach SBOM and provenance."""
    if _said("buildx", "version") is None:
        return "docker"
    driver = re.search(r"(?m)^Driver:\s+(\S+)", _said("buildx", "inspect") or "")
    if not push or (driver is not None and driver[1] != "docker"):
        return "buildx"
    # The engine's own builder keeps what it attaches only in containerd's image store.
    store = _said("info", "--format", "{{json .DriverStatus}}") or ""
    return "buildx" if "io.containerd.snapshotter" in store else "docker"


def tag_locally(step: Step, tag: str) -> None:
    """Give an image that is here already a further tag."""
    _run([DOCKER, "tag", step.tagged, f"{step.name}:{tag}"], Path())


def _said(*arguments: str) -> str | None:
    """What the Docker client answers, None where it fails."""
    answer = subprocess.run([DOCKER, *arguments], capture_output=True, text=True, check=False)
    return answer.stdout if answer.returncode == 0 else None


def _local_id(reference: str) -> str | None:
    answer = subprocess.run(
        [DOCKER, "image", "inspect", "--format", "{{.Id}}", reference], capture_output=True, text=True, check=False
    )
    if answer.returncode == 0:
        return answer.stdout.strip()
    if "no such image" in answer.stderr.lower():
        return None
    raise RuntimeError(f"docker image inspect {reference}: {answer.stderr.strip()}")


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
    print("+", " ".join(command), file=sys.stderr, flush=True)
    # Docker Engine 20.10 builds with BuildKit only when told to. Its output goes to stderr: stdout is for results.
    variables = {**os.environ, "DOCKER_BUILDKIT": "1", **(environment or {})}
    subprocess.run(command, cwd=folder, check=True, env=variables, stdout=sys.stderr)
