"""Reading a compiled package: the pipeline spec, and what it asks of Kubernetes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml


def read_documents(package: Path) -> tuple[dict[str, Any], ...]:
    """Pipeline spec, and platform spec where there is one. Shared between callers: read only."""
    return _parsed(package.read_text())


def read_spec(package: Path) -> dict[str, Any]:
    """The package's pipeline spec; read only."""
    return read_documents(package)[0]


@functools.lru_cache(maxsize=4)  # a submitted package is looked at by the lint, the checks and the submission
def _parsed(text: str) -> tuple[dict[str, Any], ...]:
    return tuple(document for document in yaml.safe_load_all(text) if document)
