"""`images.lock.json`: the image each pipeline stage runs in, which `pipeline.py compile` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.images.bake import Image

LOCK_FILE = Path("images.lock.json")
FORMAT_VERSION = 1


def read_lock(root: Path) -> dict[str, Any]:
    """The lock as it stands.

    Raises:
        ValueError: another format version.
    """
    lock: dict[str, Any] = json.loads((root / LOCK_FILE).read_text())
    if lock.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{LOCK_FILE}: format_version: found {lock.get('format_version')!r}; expected {FORMAT_VERSION}"
        )
    return lock


def write_lock(
    root: Path, images: Mapping[str, Image], references: Mapping[str, str], contents: Mapping[str, str]
) -> bool:
    """Write references (`host/name:tag@sha256:...`) and content hashes by image name; True where the file changed."""
    lock = {
        "format_version": FORMAT_VERSION,
        "pinned": all("@sha256:" in reference for reference in references.values()),
        "stages": {stage: references[image.name] for image in images.values() for stage in image.stages},
        "images": {
            image.repository: {"reference": references[image.name], "content": contents[image.name]}
            for image in images.values()
        },
    }
    text = json.dumps(lock, indent=2, sort_keys=True) + "\n"
    path = root / LOCK_FILE
    if path.is_file() and path.read_text() == text:
        return False
    path.write_text(text)
    return True


def faults(root: Path, images: Mapping[str, Image], contents: Mapping[str, str]) -> list[str]:
    """What keeps the lock from being a release: a stage without an image, an unpinned or an outdated one."""
    lock = read_lock(root)
    found = []
    for image in images.values():
        entry = lock["images"].get(image.repository, {"reference": "", "content": ""})
        if "@sha256:" not in entry["reference"]:
            found.append(f"{image.repository}: {entry['reference'] or 'absent'} is not pinned to a digest")
        elif entry["content"] != contents[image.name]:
            found.append(
                f"{image.repository}: built from content {entry['content']}, the checkout is {contents[image.name]}; "
                "build and push it again"
            )
        for stage in image.stages:
            if lock["stages"].get(stage) != entry["reference"]:
                found.append(f"stage {stage}: found {lock['stages'].get(stage)!r}; expected {entry['reference']!r}")
    return found


def pinned_references(root: Path, images: Mapping[str, Image]) -> dict[str, str]:
    """Image name -> `repository@sha256:...` as the lock pins it: what a signature or a scan is about, without a tag.

    Raises:
        ValueError: an image is not pinned.
    """
    lock, found = read_lock(root), {}
    for image in images.values():
        reference = lock["images"].get(image.repository, {}).get("reference", "")
        tagged, _, digest = reference.partition("@")
        if not digest:
            raise ValueError(f"{image.repository}: {reference or 'absent'} is not pinned to a digest")
        host, slash, rest = tagged.rpartition("/")  # a host may have a port
        found[image.name] = f"{host}{slash}{rest.partition(':')[0]}@{digest}"
    return found
