"""The addresses a run's pods will talk to, held against the NetworkPolicies of their namespace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml

from llava.pipelines.checks.network import Peer, allows

Read = Callable[[str, str], dict[str, Any] | None]
_APP = {"app.kubernetes.io/name": "llava"}
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Endpoint:
    """An address, who asks it, and where it is set."""

    url: str
    stages: Sequence[str]
    source: str


def unreachable(read: Read, namespace: str, endpoints: Sequence[Endpoint]) -> list[str]:
    """What the policies in force keep the pods from, one line each; empty too where they may not be read.

    Args:
        read: gives the object at an API path, None when there is none, {} when it may not be read (and notes that
            under the second argument).
        namespace: of the run's pods.
        endpoints: what they will talk to.
    """
    listed = read(f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies", "NetworkPolicies")
    policies = (listed or {}).get("items") or []
    if not policies:
        return []
    faults = []
    for endpoint in endpoints:
        url = endpoint.url if "//" in endpoint.url else f"https://{endpoint.url}"
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)
        peer, pod_port, shown = _resolve(read, namespace, host, port)
        closed = [
            stage
            for stage in endpoint.stages
            if not allows(policies, namespace, {**_APP, "app.kubernetes.io/component": stage}, peer, pod_port)
        ]
        if closed:
            remedy = (
                f"set its namespace ({peer.namespace}) and port ({pod_port}) in manifests/components/endpoints"
                if peer.namespace
                else f"add port {pod_port} to an egress rule of your overlay"
            )
            faults.append(
                f"{endpoint.source}: the NetworkPolicies of namespace {namespace} keep {', '.join(closed)} from "
                f"{endpoint.url} ({shown}); {remedy}"
            )
    return faults


def artifact_endpoint(launcher: Mapping[str, str]) -> str:
    """The S3 endpoint that Kubeflow's own launcher uses, from the data of its ConfigMap; empty when it names none."""
    providers = yaml.safe_load(launcher.get("providers") or "") or {}
    default = ((providers.get("s3") or {}).get("default") or {}) if isinstance(providers, dict) else {}
    endpoint = str(default.get("endpoint") or "")
    if not endpoint or "//" in endpoint:
        return endpoint
    return f"{'http' if default.get('disableSSL') else 'https'}://{endpoint}"


def _resolve(read: Read, namespace: str, host: str, port: int) -> tuple[Peer, int, str]:
    """The pods behind a Service and the port they listen on; an address outside as it is."""
    words = host.removesuffix(".").removesuffix(".cluster.local").removesuffix(".svc").split(".")
    inside = host.endswith((".svc", ".cluster.local", ".cluster.local.")) or len(words) == 1
    if len(words) > 2 or not words[0] or words[0].isdigit():
        return Peer(address=host), port, f"port {port}"
    service, where = words[0], words[1] if len(words) == 2 else namespace
    found = read(f"/api/v1/namespaces/{where}/services/{service}", "")
    if not found:
        if not inside:
            return Peer(address=host), port, f"port {port}"
        return Peer(namespace=where), port, f"port {port} of a pod in {where}"
    target, labels = port, (found.get("spec") or {}).get("selector") or {}
    for item in (found.get("spec") or {}).get("ports") or []:
        if item.get("port") == port:
            target = _pod_port(read, where, service, item)
    return Peer(namespace=where, labels=labels), target, f"its pods in {where} listen on port {target}"


def _pod_port(read: Read, namespace: str, service: str, item: Mapping[str, Any]) -> int:
    target = item.get("targetPort", item["port"])
    if isinstance(target, int):
        return target
    known = read(f"/api/v1/namespaces/{namespace}/endpoints/{service}", "")
    for subset in (known or {}).get("subsets") or []:
        for port in subset.get("ports") or []:
            if port.get("name", "") == item.get("name", ""):
                return int(port["port"])
    return int(item["port"])
