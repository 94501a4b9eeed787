"""Whether the NetworkPolicies in force let a pod reach an endpoint, by Kubernetes' own rules.

Policies add up: a pod that at least one policy selects for egress may go only where one of them lets it; a pod that
none selects, anywhere. Ports are those of the pod that answers, not of the Service before it. What the cluster's
network plugin does beyond the standard is not seen from here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Policy = Mapping[str, Any]
Direction = Literal["egress", "ingress"]


@dataclass(frozen=True)
class Peer:
    """The other end of a connection: a pod by its labels and its namespace's, or an address outside.

    Attributes:
        namespace: of a pod; empty for an address.
        namespace_labels: beyond the name, which every namespace carries as a label.
        labels: of a pod.
        address: outside the cluster; a host name is taken for some public address.
        ports: name -> number of the pod's named ports.
    """

    namespace: str = ""
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)


def allows(
    policies: Sequence[Policy],
    namespace: str,
    labels: Mapping[str, str],
    peer: Peer,
    port: int,
    *,
    protocol: str = "TCP",
    direction: Direction = "egress",
) -> bool:
    """Whether a pod may talk to a peer.

    Args:
        policies: NetworkPolicies of the pod's namespace.
        namespace, labels: of the pod.
        peer: the other end.
        port: that is listened on: the peer's for egress, the pod's own for ingress.
        protocol: TCP, UDP or SCTP.
        direction: who asks: `egress` the pod, `ingress` the peer.
    """
    kind = direction.capitalize()
    selecting = [p["spec"] for p in policies if _selects(p["spec"], labels) and kind in _types(p["spec"])]
    if not selecting:
        return True
    side = "to" if direction == "egress" else "from"
    return any(
        _rule_matches(rule, side, namespace, peer, port, protocol)
        for spec in selecting
        for rule in spec.get(direction) or []
    )


def _selects(spec: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    return _matches(spec.get("podSelector") or {}, labels)


def _types(spec: Mapping[str, Any]) -> Sequence[str]:
    """Where none are given: ingress, and egress when there are rules for it."""
    return spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])


def _rule_matches(rule: Mapping[str, Any], side: str, own: str, peer: Peer, port: int, protocol: str) -> bool:
    peers, ports = rule.get(side) or [], rule.get("ports") or []
    return (not peers or any(_is_peer(item, own, peer) for item in peers)) and (
        not ports or any(_is_port(item, port, protocol, peer) for item in ports)
    )


def _is_port(item: Mapping[str, Any], port: int, protocol: str, peer: Peer) -> bool:
    if item.get("protocol", "TCP") != protocol:
        return False
    wanted = item.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return peer.ports.get(wanted) == port
    return int(wanted) <= port <= int(item.get("endPort", wanted))


def _is_peer(item: Mapping[str, Any], own: str, peer: Peer) -> bool:
    if block := item.get("ipBlock"):
        return not peer.namespace and _in_block(block, peer.address)
    if not peer.namespace:
        return False
    if "namespaceSelector" in item:
        labels = {"kubernetes.io/metadata.name": peer.namespace, **peer.namespace_labels}
        if not _matches(item["namespaceSelector"] or {}, labels):
            return False
    elif peer.namespace != own:
        return False
    return "podSelector" not in item or _matches(item["podSelector"] or {}, peer.labels)


def _in_block(block: Mapping[str, Any], address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # a name: some public address, so only a block that holds them all is sure
        return ipaddress.ip_network(block["cidr"]).prefixlen == 0
    cut = [ipaddress.ip_network(cidr) for cidr in block.get("except") or []]
    return found in ipaddress.ip_network(block["cidr"]) and not any(found in network for network in cut)


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """A label selector; an empty one matches everything."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions") or [])


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values, operator = expression["key"], expression.get("values") or [], expression["operator"]
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return labels.get(key) not in values
    return bool((key in labels) == (operator == "Exists"))
