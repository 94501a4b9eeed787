"""Put a trained model, or its ONNX encoder, into Kubeflow's Model Registry: version, format, figures, parents.

The registry holds no weights: it names the artifact's URI. What is known of it comes from its manifest. Beside the
artifact a marker is left, so that `clean` does not delete what a registry refers to.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava import storage
from llava.errors import SettingsError, UserError
from llava.manifest import Manifest, read_manifest
from llava.pipelines.registered import MARKER

# kind of artifact -> (format, its version), as serving runtimes name them
FORMATS = {"model": ("vLLM", "1"), "onnx": ("onnx", "1")}


class RegistryError(UserError):
    """The registry does not answer, or refuses. The artifact is where it was."""


@dataclass(frozen=True)
class Registration:
    """What is registered.

    Attributes:
        name, version: in the registry.
        uri: of the artifact.
        format, format_version: as serving runtimes name them.
        metadata: figures, parents and hashes; text or numbers.
    """

    name: str
    version: str
    uri: str
    format: str
    format_version: str
    metadata: Mapping[str, str | float | bool]


def registration_of(
    uri: str, name: str, version: str, *, figures: Mapping[str, float] | None = None, run: str = ""
) -> Registration:
    """What an artifact's manifest says, as a registration.

    Args:
        uri: of a model or of an export.
        name, version: in the registry.
        figures: further ones, of the evaluation.
        run: id of the run that made it.

    Raises:
        SettingsError: it is no finished model or export.
    """
    try:
        manifest = read_manifest(uri)
    except UserError as error:
        raise SettingsError(f"{uri}: no finished artifact: {error}") from error
    if manifest.kind not in FORMATS:
        raise SettingsError(f"{uri}: found a {manifest.kind}; expected {' or '.join(FORMATS)}")
    kind, kind_version = FORMATS[manifest.kind]
    return Registration(name, version, uri, kind, kind_version, _metadata(manifest, figures or {}, run))


def register(registration: Registration, registry: str, *, author: str, token: str = "") -> str:
    """Register a model; returns the model's id.

    Args:
        registration: what.
        registry: URL of the registry.
        author: who is named.
        token: bearer token.

    Raises:
        SettingsError: the version exists, for another artifact.
        RegistryError: the registry does not answer, or refuses.
    """
    from aiohttp import ClientError
    from model_registry import ModelRegistry
    from model_registry.exceptions import StoreError
    from mr_openapi.exceptions import OpenApiException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "User access token is missing"
            # A runner of our own: the client's default patches asyncio for the whole process.
            client = ModelRegistry(registry, author=author, user_token=token or None, async_runner=asyncio_runner())
        if client.get_registered_model(registration.name) and client.get_model_version(
            registration.name, registration.version
        ):
            return _known(client, registration)
        made = client.register_model(
            registration.name,
            registration.uri,
            version=registration.version,
            model_format_name=registration.format,
            model_format_version=registration.format_version,
            metadata=dict(registration.metadata),
            version_description=str(registration.metadata.get("recipe", "")),
        )
    except (OpenApiException, StoreError, ClientError, OSError, TimeoutError) as error:
        raise RegistryError(f"{registry}: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    leave_marker(registration, registry)
    return str(made.id)


def _known(client: Any, registration: Registration) -> str:
    """The same again changes nothing; a version that names another artifact is not taken over."""
    artifact = client.get_model_artifact(registration.name, registration.version)
    if artifact is not None and artifact.uri != registration.uri:
        raise SettingsError(
            f"--version: {registration.name} {registration.version} is registered already, for {artifact.uri}; "
            "give another version"
        )
    if artifact is None:  # an attempt that broke off between version and artifact
        raise SettingsError(
            f"--version: {registration.name} {registration.version} is registered without an artifact, by an attempt "
            "that broke off; give another version, or archive that one in the registry"
        )
    return str(client.get_registered_model(registration.name).id)


def leave_marker(registration: Registration, registry: str) -> None:
    """Beside the artifact: which registry refers to it."""
    marker = {"name": f"{registration.name} {registration.version}", "registry": registry}
    storage.write_json(storage.join(registration.uri, MARKER), marker)


def asyncio_runner() -> Any:
    """A function that runs a coroutine to its end."""

    def run(coroutine: Any) -> Any:
        return asyncio.run(coroutine)

    return run


def author_of_environment() -> str:
    """Who is named when nobody says."""
    return os.environ.get("USER") or os.environ.get("LOGNAME") or Path.home().name or "llava"


def _metadata(manifest: Manifest, figures: Mapping[str, float], run: str) -> dict[str, str | float | bool]:
    recipe = str(manifest.recipe.get("name", ""))
    found: dict[str, str | float | bool] = {
        "stage": manifest.stage,
        "recipe": recipe,
        "code_version": manifest.code_version,
        "image": manifest.image,
        "data_sha256": manifest.data_hash,
        "run": run,
    }
    found |= {f"parent_{slot}": uri for slot, uri in manifest.parents.items()}
    found |= {key: str(manifest.extra[key]) for key in ("vision_tower", "language_model") if key in manifest.extra}
    found |= {f"{manifest.stage}_{key}": float(value) for key, value in manifest.numbers.items()}
    found |= {f"evaluate_{key}": float(value) for key, value in figures.items()}
    return {key: value for key, value in found.items() if value != ""}
