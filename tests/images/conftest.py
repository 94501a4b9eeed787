"""A small checkout whose images follow the same rules as the project's: two images, shared and own files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

DOCKERFILE = """\
ARG BASE_IMAGE=debian:12
FROM ${BASE_IMAGE} AS base
# a comment
FROM base AS packages
ARG LOCK=a.txt
COPY locks/${LOCK} /tmp/lock.txt
RUN cat \\
    /tmp/lock.txt
FROM base AS light
COPY lib/*.py /lib/
COPY lib/expansion /lib/expansion
COPY components/expand /components/expand
FROM base AS train
COPY --from=packages /tmp/lock.txt /lock.txt
RUN --mount=type=bind,source=tools/check.sh,target=/check.sh sh /check.sh
COPY lib/*.py /lib/
COPY lib/training /lib/training
COPY components/train /components/train
"""
IGNORE = "*\n!lib\n!components\n!locks\n!tools\n**/__pycache__\n**/README.md\n"
FILES = {
    "lib/config.py": "x = 1",
    "lib/expansion/a.py": "a = 1",
    "lib/training/b.py": "b = 1",
    "lib/training/__pycache__/b.pyc": "bytes",
    "components/expand/component.py": "e",
    "components/expand/README.md": "words",
    "components/train/component.py": "t",
    "locks/a.txt": "torch==1",
    "locks/b.txt": "torch==2",
    "tools/check.sh": "true",
    "docs/guide.md": "words",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Root of the small checkout."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / ".dockerignore").write_text(IGNORE)
    images = tmp_path / "images"
    images.mkdir()
    (images / "Dockerfile").write_text(DOCKERFILE)
    bake = {
        "variable": {
            "REGISTRY": {"default": ""},
            "TAG": {"default": "dev"},
            "BASE": {"default": "debian:12"},
            "LOCK": {"default": "a.txt"},
        },
        "group": {"default": {"targets": ["light", "train"]}},
        "target": {
            "common": {
                "context": ".",
                "dockerfile": "images/Dockerfile",
                "args": {"BASE_IMAGE": "${BASE}"},
                "labels": {},
            },
            "light": target("light", "expand"),
            "train": {**target("train", "pretrain finetune"), "args": {"LOCK": "${LOCK}"}},
        },
    }
    (images / "docker-bake.json").write_text(json.dumps(bake))
    return tmp_path


def target(name: str, stages: str) -> dict[str, object]:
    """One target of the bake file."""
    return {
        "inherits": ["common"],
        "target": name,
        "tags": [f"${{REGISTRY}}demo-{name}:${{TAG}}"],
        "labels": {"io.llava.stages": stages},
    }
