"""The TrainJob a stage asks for: its own image, environment and place, on several nodes.

Kubeflow Trainer v2, `trainer.kubeflow.org/v1alpha1`. What a node's pod has in common with the stage's own pod (secrets
by reference, service account, tolerations, node selector, volume claims) is copied from that pod, so it is decided in
one place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

API_VERSION = "trainer.kubeflow.org/v1alpha1"
NODE_CONTAINER = "node"
NODE_JOB = "node"
MANAGER = "llava.pipelines/stage"
SPEC_HASH = "llava.pipelines/spec"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
# A mesh's sidecar never ends, and so would no node; in a profile's namespace Istio adds one to every pod.
NO_SIDECAR = {"sidecar.istio.io/inject": "false"}
# Of the stage's own pod; a node has its own.
_OWN = {
    "KFP_POD_NAME",
    "KFP_POD_UID",
    "LLAVA_POD_NAME",
    "LLAVA_POD_UID",
    "LLAVA_METRICS_HOST",
    "NAMESPACE",
    "TMPDIR",
    "HF_HOME",
}


class NodeSettings(BaseModel):
    """What every node of a TrainJob gets; the stage's `train_job` setting, as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accelerators: int = Field(0, ge=0, description="Accelerators a node; 0: CPU")
    accelerator_type: str = "nvidia.com/gpu"
    cpu: str = "8"
    memory: str = "64Gi"
    shm: str = "64Gi"
    scratch: str = "200Gi"
    runtime: str = Field("torch-distributed", description="ClusterTrainingRuntime")
    queue: str = Field("", description="Kueue LocalQueue; empty: the one of the stage's own pod, if it has one")
    node_selector: dict[str, str] = Field(default_factory=dict)
    deadline_hours: int = Field(168, ge=1)


@dataclass(frozen=True)
class TrainJobRequest:
    """What is to run.

    Attributes:
        stage: pretrain or finetune.
        run: id of the pipeline run; with the stage it makes the job's name.
        nodes: number of nodes.
        command: of each node's container.
        image: reference of the training image.
        settings: resources and place of a node.
        pod: the stage's own pod as the API server has it; its name and uid own the job. Empty outside a cluster.
        environment: variables beyond those of the stage's pod.
    """

    stage: str
    run: str
    nodes: int
    command: Sequence[str]
    image: str
    settings: NodeSettings
    pod: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def job_name(stage: str, run: str) -> str:
    """A name that a retried pod of the same run finds again; short, because pods are named after it."""
    return f"llava-{stage}-{hashlib.sha256(run.encode()).hexdigest()[:10]}"


def owner_reference(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The stage's pod as owner: when it goes, the job is collected."""
    if not pod:
        return []
    metadata = pod["metadata"]
    return [{"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"], "controller": False}]


def train_job(request: TrainJobRequest) -> dict[str, Any]:
    """The TrainJob as it is sent to the API server."""
    settings = request.settings
    amounts: dict[str, str] = {"cpu": settings.cpu, "memory": settings.memory}
    if settings.accelerators:
        amounts[settings.accelerator_type] = str(settings.accelerators)
    own = _main_container(request.pod)
    spec_of_pod = request.pod.get("spec", {})
    given = _OWN | request.environment.keys()
    # What Argo and Kubeflow tell a pod of itself differs from attempt to attempt; the job must not.
    environment = [
        e for e in own.get("env", []) if e["name"] not in given and not e["name"].startswith(("ARGO_", "KFP_"))
    ]
    claims = [volume for volume in spec_of_pod.get("volumes", []) if "persistentVolumeClaim" in volume]
    mounts = [m for m in own.get("volumeMounts", []) if m["name"] in {volume["name"] for volume in claims}]
    # A field of the pod is not to be had here, so the nodes serve metrics on all of their addresses.
    environment += [{"name": "LLAVA_METRICS_HOST", "value": "0.0.0.0"}]  # nosec B104  (Prometheus scrapes the pod)
    environment += [{"name": "TMPDIR", "value": "/scratch"}, {"name": "HF_HOME", "value": _hub(own, mounts)}]
    environment += [{"name": name, "value": value} for name, value in request.environment.items()]
    pod_patch: dict[str, Any] = {
        "securityContext": _pod_security(spec_of_pod),
        "containers": [
            {
                "name": NODE_CONTAINER,
                # What Pod Security `restricted` asks of a container; Trainer sets none of it.
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [
                    {"name": "shm", "mountPath": "/dev/shm"},
                    {"name": "scratch", "mountPath": "/scratch"},
                    *mounts,
                ],
            }
        ],
        "volumes": [
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shm}},
            {"name": "scratch", "emptyDir": {"sizeLimit": settings.scratch}},
            *claims,
        ],
        "nodeSelector": {**spec_of_pod.get("nodeSelector", {}), **settings.node_selector},
        "tolerations": [t for t in spec_of_pod.get("tolerations", []) if "node.kubernetes.io" not in t.get("key", "")],
        "imagePullSecrets": spec_of_pod.get("imagePullSecrets", []),
    }
    if account := spec_of_pod.get("serviceAccountName"):
        pod_patch["serviceAccountName"] = account
    labels = {"app.kubernetes.io/name": "llava", "app.kubernetes.io/component": request.stage}
    # As a label for Istio from 1.14 on, as an annotation for those before.
    pod_metadata = {"labels": {**labels, **NO_SIDECAR}, "annotations": dict(NO_SIDECAR)}
    spec = {
        "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "ClusterTrainingRuntime", "name": settings.runtime},
        "activeDeadlineSeconds": settings.deadline_hours * 3600,
        "trainer": {
            "image": request.image,
            "command": list(request.command),
            "numNodes": request.nodes,
            "env": environment,
            "resourcesPerNode": {"requests": amounts, "limits": dict(amounts)},
        },
        "runtimePatches": [
            {
                "manager": MANAGER,
                "trainingRuntimeSpec": {
                    "template": {
                        "spec": {
                            "replicatedJobs": [
                                {
                                    "name": NODE_JOB,
                                    "template": {"spec": {"template": {"metadata": pod_metadata, "spec": pod_patch}}},
                                }
                            ]
                        }
                    }
                },
            }
        ],
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainJob",
        "metadata": {
            "name": job_name(request.stage, request.run),
            "labels": {**labels, **_queue_labels(settings, request.pod)},
            "annotations": {SPEC_HASH: hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()},
            "ownerReferences": owner_reference(request.pod),
        },
        "spec": spec,
    }


def _pod_security(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Of a node's pod: what Pod Security `restricted` asks, and the user of the stage's own pod, where one is set."""
    own = {**(spec.get("securityContext") or {}), **(_main_container({"spec": spec}).get("securityContext") or {})}
    named = ("runAsUser", "runAsGroup", "fsGroup", "fsGroupChangePolicy", "supplementalGroups")
    security = {name: own[name] for name in named if own.get(name) is not None}
    # Our images name a user that is not root by number, so this holds without one being chosen here.
    return {**security, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def _queue_labels(settings: NodeSettings, pod: Mapping[str, Any]) -> dict[str, str]:
    """Kueue's labels of the job: the queue of the `train_job` setting, else the one the stage's own pod waited in."""
    own = (pod.get("metadata") or {}).get("labels") or {}
    found = {name: str(own[name]) for name in (QUEUE_LABEL, PRIORITY_LABEL) if own.get(name)}
    return {**found, QUEUE_LABEL: settings.queue} if settings.queue else found


def _hub(own: Mapping[str, Any], mounts: Sequence[Mapping[str, Any]]) -> str:
    """Where a node keeps what it fetches from the hub: on the stage's volume for that, or in its own scratch space."""
    hub = next((str(item.get("value", "")) for item in own.get("env", []) if item["name"] == "HF_HOME"), "")
    shared = any(hub == m["mountPath"] or hub.startswith(m["mountPath"] + "/") for m in mounts)
    return hub if shared else "/scratch/hub"


def _main_container(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """Argo names the stage's own container `main`."""
    containers = pod.get("spec", {}).get("containers", [])
    return next((container for container in containers if container.get("name") == "main"), {})
