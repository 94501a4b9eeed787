"""A simulated Kubeflow, and a real object store for its runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llava import storage
from llava.pipelines.clustertest.runs import Runs
from llava.storage import clients
from tests.pipelines.clustertest.harness import kubeconfig, left_in
from tests.pipelines.clustertest.simulated import NAMESPACE, SimulatedKubeflow, kubernetes_api
from tests.pipelines.kfp_server import kfp_server
from tests.s3_server import S3Server, moto_server


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with moto_server() as server:
        yield server


@pytest.fixture
def bucket(store: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The module's store, empty; the AWS environment of the test points at it."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    clients.forget_client()
    for place in left_in(store):
        storage.delete(storage.join(store.uri, place))
    yield store
    clients.forget_client()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedKubeflow]:
    monkeypatch.chdir(tmp_path)
    for name in ("KF_PIPELINES_TOKEN", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Runs, "poll_s", 0.05)
    monkeypatch.setattr("llava.pipelines.clustertest.runs._QUIET_S", 0.05)
    state = SimulatedKubeflow()
    with kfp_server(state), kubernetes_api(state) as kubernetes:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", state.url)
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, kubernetes)))
        state.objects[f"/api/v1/namespaces/{NAMESPACE}"] = {"metadata": {"name": NAMESPACE}}
        yield state
