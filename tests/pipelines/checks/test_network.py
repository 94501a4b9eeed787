"""NetworkPolicy by Kubernetes' rules, as its own page tells them, and what a run's addresses come to under one."""

from __future__ import annotations

from typing import Any

import pytest

from llava.pipelines.checks.endpoints import Endpoint, artifact_endpoint, unreachable
from llava.pipelines.checks.network import Peer, allows

OURS = {"app": "web", "tier": "front"}


def policy(**spec: Any) -> dict[str, Any]:
    return {"spec": {"podSelector": {}, **spec}}


DATABASE = Peer(namespace="data", labels={"app": "db"}, ports={"sql": 5432})


def egress(**rule: Any) -> dict[str, Any]:
    return {"policyTypes": ["Egress"], "egress": [rule]}


X: dict[str, Any] = {"podSelector": {"matchLabels": {"app": "x"}}}
ANY_NAMESPACE: dict[str, Any] = {"namespaceSelector": {}}
NOT_DATA = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["data"]}


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        # https://kubernetes.io/docs/concepts/services-networking/network-policies/
        ({"policyTypes": ["Egress"]}, False),  # default deny
        (egress(), True),  # allow all
        ({"policyTypes": ["Ingress"]}, True),  # egress is not isolated
        ({"egress": [{"to": [{"podSelector": {}}]}]}, False),  # no policyTypes, but rules for egress; own namespace
        ({"podSelector": {"matchLabels": {"app": "other"}}, "policyTypes": ["Egress"]}, True),  # not of this pod
        (egress(to=[ANY_NAMESPACE]), True),
        (egress(to=[{"ipBlock": {"cidr": "0.0.0.0/0"}}]), False),  # blocks are for addresses outside
        (egress(to=[{**ANY_NAMESPACE, **X}]), False),  # both selectors in one peer: and
        (egress(to=[X, ANY_NAMESPACE]), True),  # two peers: or
        (egress(ports=[{"port": 5432}]), True),
        (egress(ports=[{"port": 5432, "protocol": "UDP"}]), False),
        (egress(ports=[{"port": 5000, "endPort": 6000}]), True),
        (egress(ports=[{"port": "sql"}]), True),
        (egress(to=[{"namespaceSelector": {"matchExpressions": [NOT_DATA]}}]), False),
    ],
)
def test_rules(spec: dict[str, Any], allowed: bool) -> None:
    assert allows([policy(**spec)], "shop", OURS, DATABASE, 5432) is allowed


def test_policies_add_up_and_none_isolates_nothing() -> None:
    deny, open_443 = policy(policyTypes=["Egress"]), policy(policyTypes=["Egress"], egress=[{"ports": [{"port": 443}]}])
    outside = Peer(address="93.184.216.34")
    assert allows([], "shop", OURS, outside, 443)
    assert not allows([deny], "shop", OURS, outside, 443) and allows([deny, open_443], "shop", OURS, outside, 443)


def test_blocks_and_their_exceptions() -> None:
    block = {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}
    rules = [policy(policyTypes=["Egress"], egress=[{"to": [{"ipBlock": block}]}])]
    assert allows(rules, "shop", OURS, Peer(address="s3.amazonaws.com"), 443)
    assert not allows(rules, "shop", OURS, Peer(address="169.254.169.254"), 80)
    assert allows([policy(ingress=[{}])], "shop", OURS, DATABASE, 9464, direction="ingress")


STORE = "http://minio.storage.svc.cluster.local:9000"


def read_of(objects: dict[str, Any]) -> Any:
    return lambda path, what: objects.get(path)


def test_an_address_is_judged_by_the_pods_port() -> None:
    """2.17's store: Service port 9000, pod port 8333, which is what a policy sees."""
    listens: dict[str, Any] = {
        "/api/v1/namespaces/kubeflow/services/seaweedfs": {
            "spec": {"selector": {"app": "seaweedfs"}, "ports": [{"name": "s3", "port": 9000, "targetPort": 8333}]}
        },
        "/api/v1/namespaces/storage/services/minio": {
            "spec": {"selector": {"app": "minio"}, "ports": [{"name": "api", "port": 9000, "targetPort": "api"}]}
        },
        "/api/v1/namespaces/storage/endpoints/minio": {"subsets": [{"ports": [{"name": "api", "port": 9001}]}]},
    }
    to_kubeflow = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kubeflow"}}}
    for port, count in ((9000, 1), (8333, 0)):
        rule = policy(policyTypes=["Egress"], egress=[{"to": [to_kubeflow], "ports": [{"port": port}]}])
        objects = {**listens, "/apis/networking.k8s.io/v1/namespaces/kubeflow/networkpolicies": {"items": [rule]}}
        endpoint = Endpoint("http://seaweedfs.kubeflow:9000", ["pretrain"], "ConfigMap llava-storage")
        found = unreachable(read_of(objects), "kubeflow", [endpoint])
        assert len(found) == count
    (fault,) = unreachable(read_of(objects), "kubeflow", [Endpoint(STORE, ["expand", "export"], "ConfigMap x")])
    assert "ConfigMap x: the NetworkPolicies of namespace kubeflow keep expand, export from" in fault
    assert "its pods in storage listen on port 9001" in fault and "manifests/components/endpoints" in fault
    outside = [Endpoint("https://api.openai.com/v1", ["expand"], "expand_teacher_endpoint")]
    assert "port 443" in unreachable(read_of(objects), "kubeflow", outside)[0]
    assert unreachable(read_of({}), "kubeflow", outside) == [], "no policy, or none that may be read"


def test_the_launchers_endpoint() -> None:
    providers = "s3: {default: {endpoint: 'store.kubeflow.svc:9000', disableSSL: true}}"
    assert artifact_endpoint({"providers": providers}) == "http://store.kubeflow.svc:9000"
    assert artifact_endpoint({"providers": "s3: {default: {endpoint: s3.amazonaws.com}}"}) == "https://s3.amazonaws.com"
    assert artifact_endpoint({}) == ""
