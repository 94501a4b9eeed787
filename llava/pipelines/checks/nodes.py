"""Whether any node of a cluster can hold a pod: resources, labels, taints.

Judged by what nodes can hold when empty (`allocatable`): what is in use now will be free again, what no node has never
will. Taints that Kubernetes sets itself (not ready, cordoned) pass, and are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

Node = Mapping[str, Any]


@dataclass(frozen=True)
class PodRequest:
    """What one pod asks for.

    Attributes:
        amounts: resource name -> Kubernetes quantity; "0" asks for nothing.
        selector: labels its node must have.
        tolerations: as in a pod's spec.
    """

    amounts: Mapping[str, str]
    selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()


def why_impossible(request: PodRequest, nodes: Sequence[Node], pods: int = 1) -> str:
    """Why no node, however empty, can hold such a pod; empty when one can.

    Args:
        request: of one pod.
        nodes: as the API server lists them.
        pods: how many of them must run at the same time, on one node or several.
    """
    wanted = {name: _quantity(amount) for name, amount in request.amounts.items() if _quantity(amount)}
    asked = ", ".join(f"{request.amounts[name]} {name}" for name in wanted)
    labelled = [node for node in nodes if request.selector.items() <= _labels(node).items()]
    if not labelled:
        return f"no node has the labels {dict(request.selector)}" if request.selector else "the cluster has no nodes"
    open_to_us = [node for node in labelled if not _untolerated(node, request.tolerations)]
    room = {_name(node): _room(node, wanted) for node in open_to_us}
    if sum(room.values()) >= pods:
        return ""
    if any(_room(node, wanted) for node in labelled) and not any(room.values()):
        node = next(node for node in labelled if _room(node, wanted))
        return (
            f"only tainted nodes can hold {asked}; {_name(node)} has the taint "
            f"{_shown(_untolerated(node, request.tolerations))}, which is not tolerated"
        )
    if any(room.values()):
        return f"{pods} pods of {asked} are asked for at once; all nodes together can hold {sum(room.values())}"
    for name, amount in wanted.items():
        best = max(open_to_us or labelled, key=lambda node: _allocatable(node, name))
        most = _allocatable(best, name)
        if most < amount:
            offer = f"the most that one node offers is {_text(best, name)} ({_name(best)})"
            return f"{request.amounts[name]} {name} in one pod; {offer if most else 'no node of this cluster has any'}"
    return f"no single node has {asked} together"


def _room(node: Node, wanted: Mapping[str, Decimal]) -> int:
    """How many such pods an empty node holds."""
    return min((int(_allocatable(node, name) // amount) for name, amount in wanted.items()), default=1)


def _untolerated(node: Node, tolerations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The first taint that keeps a pod off a node."""
    for taint in node.get("spec", {}).get("taints") or []:
        passing = str(taint.get("key", "")).startswith("node.kubernetes.io/")
        keeps_off = taint.get("effect") in ("NoSchedule", "NoExecute") and not passing
        if keeps_off and not any(_tolerates(toleration, taint) for toleration in tolerations):
            return dict(taint)
    return None


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def _shown(taint: Mapping[str, Any] | None) -> str:
    taint = taint or {}
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint.get('key')}{value}:{taint.get('effect')}"


def _quantity(text: str) -> Decimal:
    from kubernetes.utils.quantity import parse_quantity

    return Decimal(parse_quantity(text))


def _text(node: Node, resource: str) -> str:
    return str((node.get("status", {}).get("allocatable") or {}).get(resource, "0"))


def _allocatable(node: Node, resource: str) -> Decimal:
    return _quantity(_text(node, resource))


def _labels(node: Node) -> Mapping[str, str]:
    return node["metadata"].get("labels") or {}


def _name(node: Node) -> str:
    return str(node["metadata"]["name"])
