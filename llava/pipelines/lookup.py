"""Where the artifacts of an earlier run on Kubeflow are: asked of its API first, of the store only as a last resort."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from llava.errors import SettingsError, StorageError, UserError
from llava.pipelines.checks.cluster import Cluster
from llava.pipelines.earlier import EarlierRun, RunNotFound, find_run, from_executions, pick
from llava.pipelines.service import RemoteRun, Service

LAUNCHER = "kfp-launcher"
# What KFP's launcher takes where its ConfigMap names no root (backend/src/v2/config/env.go, 2.17.0).
DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"

Source = tuple[str, str]


def default_root(namespace: str, context: str | None) -> str:
    """The pipeline root of runs that name none, from the ConfigMap that the launcher reads; empty when not readable."""
    try:
        found = Cluster(context).get(f"/api/v1/namespaces/{namespace}/configmaps/{LAUNCHER}")
    except UserError:
        return ""
    return str(((found or {}).get("data") or {}).get("defaultPipelineRoot") or DEFAULT_ROOT)


def look_up(
    service: Service,
    remote: RemoteRun,
    wanted: Collection[Source],
    optional: Collection[Source],
    *,
    root: str | None,
    namespace: str,
    context: str | None,
) -> tuple[EarlierRun, Mapping[Source, str]]:
    """The earlier run, and the URIs of the wanted artifacts.

    Args:
        service: where it ran.
        remote: what the service says of it.
        wanted: (stage, output) of artifacts.
        optional: those that may be absent.
        root: its pipeline root, where the user gives one.
        namespace, context: where to read the launcher's ConfigMap, should the root be needed.

    Raises:
        RunNotFound: it made no such artifact.
        SettingsError: the API does not know, and the store would have to be read but where it is is not known.
        StorageError: it would have to be read, and cannot be; the message says how to reach it.
    """
    told = replace(from_executions(remote.run, service.executions(remote.run)), arguments=remote.arguments)
    if all(source in told.artifacts for source in wanted if source not in optional):
        return told, pick(told, wanted, optional, look=False)
    place = root or remote.root or default_root(namespace, context)
    if not place:
        raise SettingsError(
            f"run {remote.run!r}: the API does not say where its artifacts are, and its pipeline root is not known "
            "either; give --root, or a kubeconfig (--context) that may read the ConfigMap kfp-launcher"
        )
    try:
        left = find_run(place, remote.run)
    except StorageError as error:
        raise StorageError(
            f"{error}\nrun {remote.run!r}: the API does not name every artifact, so the store had to be read at "
            f"{place}; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for a store of one's own, AWS_ENDPOINT_URL as "
            "the pods have them (Secret and ConfigMap llava-storage; in a cluster: kubectl -n NAMESPACE port-forward "
            "service/STORE 9000), or give the artifacts by --param"
        ) from error
    except RunNotFound:
        if not told.artifacts:
            raise
        left = EarlierRun(remote.run, {})
    merged = EarlierRun(
        remote.run, {**left.artifacts, **told.artifacts}, remote.arguments, {**told.checkpoints, **left.checkpoints}
    )
    return merged, pick(merged, wanted, optional)
