"""Whether nodes have room for pods, and which tolerations let them on."""

from __future__ import annotations

from typing import Any

import pytest

from llava.pipelines.checks.nodes import PodRequest, why_impossible
from tests.pipelines.checks.test_cluster_check import GPU_TAINT, node

REQUEST = PodRequest({"nvidia.com/gpu": "4", "cpu": "8"}, {}, [{"key": "nvidia.com/gpu", "operator": "Exists"}])


@pytest.mark.parametrize(
    ("nodes", "pods", "said"),
    [
        ([node("a", gpus=4)], 1, ""),
        ([node("a", gpus=8, cpu="17")], 2, ""),
        ([node("a", gpus=8, cpu="15500m")], 2, "2 pods of 4 nvidia.com/gpu, 8 cpu are asked for at once"),
        ([node("a", gpus=4, cpu="4"), node("b", gpus=2)], 1, "no single node has 4 nvidia.com/gpu, 8 cpu together"),
        ([node("a", gpus=4, taints=[{**GPU_TAINT, "effect": "PreferNoSchedule"}])], 1, ""),
        ([node("a", gpus=4, taints=[{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}])], 1, ""),
        ([node("a", gpus=4, taints=[{"key": "spot", "value": "yes", "effect": "NoExecute"}])], 1, "spot=yes:NoExecute"),
        ([], 1, "the cluster has no nodes"),
    ],
)
def test_room_on_nodes(nodes: list[dict[str, Any]], pods: int, said: str) -> None:
    found = why_impossible(REQUEST, nodes, pods)
    assert said in found and bool(found) is bool(said)


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "spot", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}, True),
        ({"key": "spot", "value": "yes"}, True),
        ({"key": "spot", "operator": "Equal", "value": "no"}, False),
        ({"key": "spot", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_tolerations_as_kubernetes_reads_them(toleration: dict[str, str], tolerated: bool) -> None:
    nodes = [node("a", taints=[{"key": "spot", "value": "yes", "effect": "NoSchedule"}])]
    assert (why_impossible(PodRequest({"cpu": "1"}, {}, [toleration]), nodes) == "") is tolerated
