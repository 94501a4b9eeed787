"""Each overlay's NetworkPolicies against every connection a run needs, and against some that it must not have."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from llava.pipelines.checks.network import Peer, allows
from llava.stages.stage import STAGE_MODULES
from tests.manifests.conftest import MANIFESTS, Resource, render

DNS = Peer(namespace="kube-system", labels={"k8s-app": "kube-dns"})
KUBEFLOW = Peer(namespace="kubeflow", labels={"app": "ml-pipeline"})
OUTSIDE = Peer(address="93.184.216.34")

# (what, the other end, the port its pod listens on, protocol)
NEEDED = [
    ("DNS", DNS, 53, "UDP"),
    ("DNS of long answers", DNS, 53, "TCP"),
    ("the pipeline API, gRPC", KUBEFLOW, 8887, "TCP"),
    ("the pipeline API, HTTP", KUBEFLOW, 8888, "TCP"),
    ("the metadata service", Peer(namespace="kubeflow", labels={"component": "metadata-grpc-server"}), 8080, "TCP"),
    ("the store of KFP 2.16 and 2.17", Peer(namespace="kubeflow", labels={"app": "seaweedfs"}), 8333, "TCP"),
    ("the store of KFP 2.14 and 2.15", Peer(namespace="kubeflow", labels={"app": "minio"}), 9000, "TCP"),
    ("the Kubernetes API behind its Service", Peer(address="10.96.0.1"), 443, "TCP"),
    ("the Kubernetes API on its node", Peer(address="172.18.0.2"), 6443, "TCP"),
    ("a store, a hub, a hosted teacher outside", OUTSIDE, 443, "TCP"),
    ("a Pushgateway", Peer(namespace="monitoring", labels={"app": "pushgateway"}), 9091, "TCP"),
]
REFUSED = [
    ("a node's metadata service", Peer(address="169.254.169.254"), 443, "TCP"),
    ("a node's metadata service, HTTP", Peer(address="169.254.169.254"), 80, "TCP"),
    ("another team's database", Peer(namespace="shop", labels={"app": "db"}), 5432, "TCP"),
    ("plain HTTP outside", OUTSIDE, 80, "TCP"),
]


def policies_of(resources: tuple[Resource, ...]) -> tuple[list[dict[str, Any]], str]:
    found = [resource for resource in resources if resource["kind"] == "NetworkPolicy"]
    (namespace,) = {policy["metadata"]["namespace"] for policy in found}
    return found, namespace


@pytest.mark.parametrize("stage", STAGE_MODULES)
def test_a_stage_reaches_what_it_needs_and_no_more(stage: str, resources: tuple[Resource, ...]) -> None:
    policies, namespace = policies_of(resources)
    labels = {"app.kubernetes.io/name": "llava", "app.kubernetes.io/component": stage}
    for what, peer, port, protocol in NEEDED:
        assert allows(policies, namespace, labels, peer, port, protocol=protocol), what
    for what, peer, port, protocol in REFUSED:
        assert not allows(policies, namespace, labels, peer, port, protocol=protocol), what


def test_ranks_reach_each_other_and_prometheus_reaches_them(resources: tuple[Resource, ...]) -> None:
    policies, namespace = policies_of(resources)
    labels = {"app.kubernetes.io/name": "llava", "app.kubernetes.io/component": "finetune"}
    rank, prometheus = Peer(namespace=namespace, labels=labels), Peer(namespace="monitoring")
    for port in (29500, 41873):  # the rendezvous, and whatever NCCL chooses
        assert allows(policies, namespace, labels, rank, port)
        assert allows(policies, namespace, labels, rank, port, direction="ingress")
    assert allows(policies, namespace, labels, prometheus, 9464, direction="ingress")
    assert not allows(policies, namespace, labels, prometheus, 29500, direction="ingress")
    assert not allows(policies, namespace, labels, Peer(namespace="shop"), 9464, direction="ingress")


def test_the_local_store_is_reached_on_its_pods_port() -> None:
    resources = render(MANIFESTS / "overlays" / "local")
    policies, namespace = policies_of(resources)
    deployment = next(r for r in resources if r["kind"] == "Deployment")["spec"]["template"]
    (listens,) = [p["containerPort"] for c in deployment["spec"]["containers"] for p in c["ports"]]
    store = Peer(namespace=namespace, labels=deployment["metadata"]["labels"])
    assert allows(policies, namespace, {"app.kubernetes.io/name": "llava"}, store, listens)


def test_the_component_opens_a_store_and_a_teacher_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(MANIFESTS, tmp_path / "manifests", ignore=shutil.ignore_patterns("node_modules"))
    values = tmp_path / "manifests/components/endpoints/values.yaml"
    changed = values.read_text().replace("namespace: vllm", "namespace: teachers").replace("8000", "8001")
    values.write_text(changed)
    overlay = tmp_path / "manifests/overlays/mine"
    overlay.mkdir()
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "kubeflow",
        "resources": ["../local"],
        "components": ["../../components/endpoints"],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    resources = render(overlay)
    assert not [r for r in resources if r["kind"] == "EndpointValues"], "kustomize's alone"
    policies, namespace = policies_of(resources)
    expand = {"app.kubernetes.io/name": "llava", "app.kubernetes.io/component": "expand"}
    train = {**expand, "app.kubernetes.io/component": "pretrain"}
    for labels, peer, port, allowed in (
        (expand, Peer(namespace="minio"), 9000, True),
        (train, Peer(namespace="minio"), 9000, True),
        (train, Peer(namespace="minio"), 9001, False),
        (expand, Peer(namespace="teachers"), 8001, True),
        ({**expand, "app.kubernetes.io/component": "evaluate"}, Peer(namespace="teachers"), 8001, True),
        (expand, Peer(namespace="vllm"), 8000, False),
        (train, Peer(namespace="teachers"), 8001, False),  # no training asks a model
    ):
        assert allows(policies, namespace, labels, peer, port) is allowed, (labels, peer, port)
