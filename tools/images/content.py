"""The content hash of an image: over exactly what goes into it, and nothing else.

In: the instructions of every build stage it is made through, the values of the build arguments those stages declare,
the name of its base image, and path, executable bit and bytes of each file that is copied in. A comment, a file that
no COPY names, and whatever `.dockerignore` keeps out do not count.
"""

from __future__ import annotations

import hashlib
import re
from fnmatch import translate
from pathlib import Path

from tools.images.bake import Image
from tools.images.dockerfile import Dockerfile, DockerfileError, argument_names, copied, expand, parse

TAG_LENGTH = 20


def content_hash(root: Path, image: Image) -> str:
    """The first 20 hex digits of the SHA-256: short enough for a tag, long enough never to collide here."""
    dockerfile = parse((root / image.dockerfile).read_text())
    stages = dockerfile.reached(image.target, image.arguments)
    values = {**dockerfile.arguments, **image.arguments}
    digest = hashlib.sha256(b"llava image content 1\n")
    for stage in stages:
        digest.update(f"FROM {expand(stage.base, values)} AS {stage.name}\n".encode())
        for name in sorted(argument_names(stage)):
            digest.update(f"ARG {name}={values.get(name, '')}\n".encode())
        for instruction in stage.instructions:
            digest.update(f"{instruction.text()}\n".encode())
    for path in image_files(root, image, dockerfile):
        file = root / path
        executable = "x" if file.stat().st_mode & 0o100 else "-"
        digest.update(f"{path} {executable} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:TAG_LENGTH]


def image_files(root: Path, image: Image, dockerfile: Dockerfile | None = None) -> list[str]:
    """Paths below the checkout of every file that goes into an image, sorted.

    Raises:
        DockerfileError: a COPY names something that is not there or is kept out by `.dockerignore`.
    """
    dockerfile = dockerfile or parse((root / image.dockerfile).read_text())
    values = {**dockerfile.arguments, **image.arguments}
    ignored = Ignore((root / ".dockerignore").read_text())
    found: set[str] = set()
    for stage in dockerfile.reached(image.target, image.arguments):
        for pattern in copied(stage, values):
            files = {
                str(file.relative_to(root))
                for match in root.glob(pattern.rstrip("/"))
                for file in ([match] if match.is_file() else match.rglob("*"))
                if file.is_file()
            }
            files = {path for path in files if path not in ignored}
            if not files:
                raise DockerfileError(
                    f"{image.dockerfile}: stage {stage.name}: COPY {pattern}: no such file in the build context"
                )
            found |= files
    return sorted(found)


class Ignore:
    """A `.dockerignore`: the last pattern that matches a path or a folder above it decides."""

    def __init__(self, text: str) -> None:
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        for line in text.splitlines():
            pattern = line.strip()
            if not pattern or pattern.startswith("#"):
                continue
            keep = pattern.startswith("!")
            self._rules.append((keep, _pattern(pattern.lstrip("!").strip("/"))))

    def __contains__(self, path: str) -> bool:
        parts = path.split("/")
        candidates = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
        ignored = False
        for keep, pattern in self._rules:
            if any(pattern.fullmatch(candidate) for candidate in candidates):
                ignored = not keep
        return ignored


def _pattern(pattern: str) -> re.Pattern[str]:
    # `*` stays within one folder, `**` crosses them; `**/x` also matches x at the root.
    pieces = []
    for part in pattern.split("/"):
        if part == "**":
            pieces.append(r"(?:[^/]+/)*")
        else:
            inner = translate(part).removeprefix("(?s:").removesuffix(r")\Z").replace(".*", "[^/]*")
            pieces.append(f"{inner}/")
    return re.compile("".join(pieces).removesuffix("/"))
