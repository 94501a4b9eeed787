"""Where the artifacts of an execution are: their URIs, the launcher's copies in a pod, and the record beside them.

Kubeflow's launcher keeps the local copy of an artifact at a path made of its URI: `s3://b/k` is `/s3/b/k`.
"""

from __future__ import annotations

from pathlib import Path

from llava import storage

RECORD_NAME = "llava-outputs.json"  # beside an execution's artifacts: what it read and wrote
_MOUNTS = {"s3://": "/s3/", "minio://": "/minio/"}


def launcher_path(uri: str) -> Path:
    """Where the launcher keeps the copy of an artifact; a path is itself."""
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return Path(mount + uri.removeprefix(scheme).partition("?")[0])
    return storage.local_path(uri)


def artifact_uri(place: str) -> str:
    """The URI behind a path at which the launcher keeps a copy; anything else as it is."""
    for scheme, mount in _MOUNTS.items():
        if place.startswith(mount):
            return scheme + place.removeprefix(mount)
    return place
