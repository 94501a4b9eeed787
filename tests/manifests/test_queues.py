"""Which flavour Kueue gives the pods of a run, by its rule (v0.19, pkg/scheduler/flavorassigner/flavorassigner.go).

Of a resource group the flavours are tried in order; one is passed over whose taint the pod does not tolerate, or whose
labels the pod's node selector or required affinity contradicts (a preferred affinity does not count); of the others the
first whose free quota holds every resource the pod asks for is taken. Without one the pod waits.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from llava.pipelines.checks.nodes import _quantity, _tolerates
from llava.pipelines.resources import NEEDS, TOLERATE_GPU_TAINT
from tests.manifests.conftest import MANIFESTS, Resource, render

GPU = "nvidia.com/gpu"


def assign(
    resources: tuple[Resource, ...],
    requests: dict[str, str],
    *,
    selector: dict[str, str] | None = None,
    tolerations: list[dict[str, Any]] | None = None,
    used: dict[tuple[str, str], int] | None = None,
) -> str | None:
    """The flavour's name, None when the pod waits."""
    flavours = {r["metadata"]["name"]: r.get("spec", {}) for r in resources if r["kind"] == "ResourceFlavor"}
    (queue,) = [r["spec"] for r in resources if r["kind"] == "ClusterQueue"]
    (group,) = queue["resourceGroups"]
    assert requests.keys() <= set(group["coveredResources"])
    for quota in group["flavors"]:
        flavour = flavours[quota["name"]]
        tolerated = [*(tolerations or []), *flavour.get("tolerations", [])]
        if any(not any(_tolerates(t, taint) for t in tolerated) for taint in flavour.get("nodeTaints", [])):
            continue
        labels = flavour.get("nodeLabels", {})
        if any(labels[key] != value for key, value in (selector or {}).items() if key in labels):
            continue
        free = {
            item["name"]: _quantity(item["nominalQuota"]) - Decimal((used or {}).get((quota["name"], item["name"]), 0))
            for item in quota["resources"]
        }
        if all(_quantity(amount) <= free[name] for name, amount in requests.items()):
            return str(quota["name"])
    return None


@pytest.fixture(params=["gpu", "multi-node"])
def queueing(request: pytest.FixtureRequest) -> tuple[Resource, ...]:
    return render(MANIFESTS / "overlays" / request.param)


@pytest.mark.parametrize("stage", ["expand", "export"])
def test_a_stage_without_gpu_never_gets_the_gpu_flavour(stage: str, queueing: tuple[Resource, ...]) -> None:
    asked = {"cpu": NEEDS[stage].cpu, "memory": NEEDS[stage].memory}
    assert assign(queueing, asked) == "llava-cpu"
    full = {("llava-cpu", "cpu"): 32}
    assert assign(queueing, asked, used=full) is None, "it waits for a CPU and does not occupy a GPU node"


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "evaluate"])
def test_a_stage_with_gpus_falls_through_to_them(stage: str, queueing: tuple[Resource, ...]) -> None:
    asked = {"cpu": NEEDS[stage].cpu, "memory": NEEDS[stage].memory, GPU: "8"}
    assert assign(queueing, asked, tolerations=TOLERATE_GPU_TAINT) == "llava-gpu"
    assert assign(queueing, asked, tolerations=TOLERATE_GPU_TAINT, used={("llava-gpu", GPU): 1}) is None


def test_a_stage_that_only_follows_its_trainjob_takes_no_gpu_node(queueing: tuple[Resource, ...]) -> None:
    """It tolerates the taint, as its job's nodes must, and asks for no GPU."""
    asked = {"cpu": "1", "memory": "4Gi"}
    assert assign(queueing, asked, tolerations=TOLERATE_GPU_TAINT) == "llava-cpu"


def test_the_order_matters(queueing: tuple[Resource, ...]) -> None:
    """The rule above finds what was wrong: with the GPU flavour first, and open to all, an expansion went there."""
    turned = []
    for resource in queueing:
        spec = dict(resource.get("spec", {}))
        if resource["kind"] == "ClusterQueue":
            (group,) = spec["resourceGroups"]
            spec["resourceGroups"] = [{**group, "flavors": list(reversed(group["flavors"]))}]
        elif resource["kind"] == "ResourceFlavor":
            spec.pop("nodeTaints", None)
        turned.append({**resource, "spec": spec} if spec else resource)
    assert assign(tuple(turned), {"cpu": "2", "memory": "8Gi"}) == "llava-gpu"
