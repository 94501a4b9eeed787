"""The manifest every model and data artifact carries: where it came from and what it measured.

`manifest.json` stands at the root of a folder artifact; for a file artifact `name`, it stands beside it as
`name.manifest.json`. A later run finds an earlier run's outputs through these.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from llava import __version__, storage
from llava.redaction import redact_all
from llava.validation import validate

FORMAT_VERSION = 1


def redacted_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the keys and passwords that somebody wrote into an address."""
    return {name: redact_all(value) for name, value in settings.items()}


class Manifest(BaseModel):
    """What an artifact is made of. All hashes are SHA-256 in hex."""

    model_config = ConfigDict(extra="forbid")

    format_version: int = FORMAT_VERSION
    kind: str = Field(description="projector, model, records, onnx, predictions, ...")
    stage: str
    created_unix: float = Field(default_factory=time.time)
    code_version: str = __version__
    image: str = Field(
        default_factory=lambda: os.environ.get("LLAVA_IMAGE", ""), description="image@digest the stage ran in"
    )
    settings: Annotated[dict[str, Any], AfterValidator(redacted_settings)] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    data_hash: str = ""
    parents: dict[str, str] = Field(default_factory=dict, description="input name -> URI")
    numbers: dict[str, float] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict, description="path below the artifact -> hash")
    extra: dict[str, Any] = Field(default_factory=dict)


def sha256(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_of(path: Path) -> tuple[str, int]:
    """SHA-256 in hex and size in bytes of a file of any size."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest, path.stat().st_size


def manifest_uri(artifact_uri: str, *, folder: bool = True) -> str:
    """Where an artifact's manifest stands."""
    return storage.join(artifact_uri, "manifest.json") if folder else f"{artifact_uri}.manifest.json"


def write_manifest(artifact_uri: str, manifest: Manifest, *, folder: bool = True) -> None:
    """Write last, after every file it names: an artifact with a manifest is complete."""
    storage.write_json(manifest_uri(artifact_uri, folder=folder), manifest.model_dump(mode="json"))


def read_manifest(artifact_uri: str, *, folder: bool = True) -> Manifest:
    """Read an artifact's manifest.

    Raises:
        StorageError: there is none, so the artifact is not ours or was never completed.
        SettingsError: it is of another format.
    """
    source = manifest_uri(artifact_uri, folder=folder)
    return validate(Manifest, storage.read_json(source), source)
