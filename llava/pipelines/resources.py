"""What each stage asks of a cluster: accelerators, memory, scratch space, secrets, retries, a deadline, labels.

What a person may want to change per run is a pipeline parameter (text, numbers as text: kfp drops an accelerator whose
count is an integer parameter); what Kubernetes wants at compile time (volume sizes, retries, deadlines, labels) is in
`NEEDS` and in the options of `compile`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llava.stages.spending import PRICE

if TYPE_CHECKING:
    from kfp.dsl import PipelineTask

METRICS_PORT = "9464"
SCRATCH = "/scratch"
HUB_CACHE = "/hub-cache"
HOUR = 3600
QUEUE_DAYS = 7

# Nodes with an accelerator carry this label when NVIDIA's GPU operator or feature discovery runs.
_NO_ACCELERATOR = {"key": "nvidia.com/gpu.present", "operator": "DoesNotExist"}
AVOID_GPU_NODES = {
    "preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 100, "preference": {"matchExpressions": [_NO_ACCELERATOR]}}
    ]
}
TOLERATE_GPU_TAINT = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]

STORAGE_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
# Of the ConfigMap `storage_config`: where the store is, and where runs too short to be scraped push their metrics.
CONFIG_KEYS = ("AWS_ENDPOINT_URL", "AWS_REGION", "LLAVA_PUSHGATEWAY", PRICE)


@dataclass(frozen=True)
class Parameter:
    """A pipeline parameter that is no stage's setting."""

    name: str
    kind: type
    default: Any
    description: str


@dataclass(frozen=True)
class Needs:
    """What a stage needs that is decided at compile time.

    Attributes:
        accelerated: it runs on accelerators when there are any.
        cpu, memory: what its parameters ask for by default; pretrain and finetune share theirs.
        scratch: size limit of its scratch volume.
        shm: size limit of `/dev/shm`, for processes that share tensors.
        retries: how often a lost or failed pod is started again; training resumes from its checkpoints.
        deadline_h: hours after which one attempt's pod is given up, counted from when it runs.
    """

    accelerated: bool
    cpu: str
    memory: str
    scratch: str = "20Gi"
    shm: str = ""
    retries: int = 2
    deadline_h: int = 24


NEEDS = {
    # A teacher's answers outlive the pod in the ledger, so a retry asks for no answer twice.
    "expand": Needs(accelerated=False, cpu="2", memory="8Gi", retries=5, deadline_h=72),
    "pretrain": Needs(accelerated=True, cpu="8", memory="64Gi", scratch="200Gi", shm="64Gi", retries=5, deadline_h=72),
    "finetune": Needs(accelerated=True, cpu="8", memory="64Gi", scratch="200Gi", shm="64Gi", retries=5, deadline_h=168),
    "evaluate": Needs(accelerated=True, cpu="4", memory="32Gi", scratch="100Gi", shm="16Gi", retries=2, deadline_h=24),
    "export": Needs(accelerated=False, cpu="4", memory="32Gi", scratch="100Gi", retries=2, deadline_h=12),
}


def retry_window_days(needs: Needs) -> int:
    """Days in which a stage's attempts may lie.

    Argo counts them from the first attempt's start (its `backoff.maxDuration`; v4.0.5, operator.go): past the window
    nothing is retried, and a retried pod that still runs at its end is killed there. So it holds every attempt at full
    length, each after a week in a queue. kfp's own default is one hour.
    """
    return (needs.retries + 1) * (math.ceil(needs.deadline_h / 24) + QUEUE_DAYS)


def group_of(stage: str) -> str:
    """What a stage's resource parameters start with: the training stages share theirs."""
    return "train" if stage in ("pretrain", "finetune") else stage


@dataclass(frozen=True)
class ClusterOptions:
    """Compile-time options: Kubernetes takes none of these from a pipeline parameter.

    Attributes:
        queue: Kueue LocalQueue; empty: no queueing.
        priority: Kueue priority class; empty: the queue's default.
        labels: further pod labels, for cost reports.
        hub_cache: PersistentVolumeClaim that keeps base models from the hub between pods; empty: each pod fetches them.
    """

    queue: str = ""
    priority: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    hub_cache: str = ""


def parameters(stages: tuple[str, ...]) -> list[Parameter]:
    """The infrastructure parameters of a package with these stages."""
    found: list[Parameter] = []
    groups: dict[str, list[str]] = {}
    for stage in stages:
        groups.setdefault(group_of(stage), []).append(stage)
    for group, members in groups.items():
        what, needs = " and ".join(members), NEEDS[members[0]]
        if needs.accelerated:
            text = f'Accelerators per pod of {what}, as text; "0" for CPU'
            found.append(Parameter(f"{group}_accelerators", str, "1", text))
        found += [
            Parameter(f"{group}_cpu", str, needs.cpu, f"CPU request and limit of {what}"),
            Parameter(f"{group}_memory", str, needs.memory, f"Memory request and limit of {what}"),
        ]
    if any(NEEDS[stage].accelerated for stage in stages):
        found += [
            Parameter("accelerator_type", str, "nvidia.com/gpu", "Resource name of the accelerator"),
            Parameter("accelerator_node_selector", dict, {}, "Node labels that accelerated stages need, as JSON"),
            Parameter(
                "accelerator_tolerations",
                list,
                TOLERATE_GPU_TAINT,
                "Taints that accelerated stages tolerate, as a JSON list",
            ),
        ]
    if any(not NEEDS[stage].accelerated for stage in stages):
        found.append(
            Parameter("cpu_node_affinity", dict, AVOID_GPU_NODES, "Node affinity of the stages without accelerator")
        )
    found += [
        Parameter(
            "storage_secret",
            str,
            "llava-storage",
            f"Secret with {' and '.join(STORAGE_KEYS)}; may be absent under workload identity",
        ),
        Parameter("storage_config", str, "llava-storage", f"ConfigMap with {', '.join(CONFIG_KEYS)}; may be absent"),
    ]
    if "expand" in stages:
        found.append(
            Parameter(
                "teacher_secret",
                str,
                "llava-teacher",
                "Secret with OPENAI_API_KEY; may be absent with the offline teacher",
            )
        )
    if any(NEEDS[stage].accelerated for stage in stages):
        found.append(Parameter("hub_secret", str, "llava-hub", "Secret with HF_TOKEN, for gated models; may be absent"))
    return found


def apply(task: PipelineTask, stage: str, image: str, values: Mapping[str, Any], options: ClusterOptions) -> None:
    """Give a stage's task everything it asks of the cluster.

    Args:
        task: the task, before compilation.
        stage: whose task it is.
        image: reference the manifest shall name.
        values: infrastructure parameter name -> pipeline channel.
        options: compile-time options.
    """
    from kfp import kubernetes

    needs, group = NEEDS[stage], group_of(stage)
    cpu, memory = values[f"{group}_cpu"], values[f"{group}_memory"]
    if needs.accelerated:
        task.set_accelerator_type(values["accelerator_type"]).set_accelerator_limit(values[f"{group}_accelerators"])
        kubernetes.add_node_selector_json(task, values["accelerator_node_selector"])
        kubernetes.add_toleration_json(task, values["accelerator_tolerations"])
    else:
        kubernetes.add_node_affinity_json(task, values["cpu_node_affinity"])
    task.set_cpu_request(cpu).set_cpu_limit(cpu).set_memory_request(memory).set_memory_limit(memory)

    window = f"{retry_window_days(needs)}d"
    task.set_retry(needs.retries, backoff_duration="60s", backoff_factor=2.0, backoff_max_duration=window)
    kubernetes.set_timeout(task, needs.deadline_h * HOUR)
    if needs.shm:
        kubernetes.empty_dir_mount(
            task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=needs.shm
        )
    # The root file system may be read-only; caches and temporary files go here.
    kubernetes.empty_dir_mount(task, volume_name="scratch", mount_path=SCRATCH, size_limit=needs.scratch)
    hub = f"{SCRATCH}/hub"
    if options.hub_cache and needs.accelerated:  # the others read nothing from the hub
        kubernetes.mount_pvc(task, pvc_name=options.hub_cache, mount_path=HUB_CACHE)
        hub = HUB_CACHE
    task.set_env_variable("TMPDIR", SCRATCH).set_env_variable("HF_HOME", hub)
    task.set_env_variable("LLAVA_METRICS_PORT", METRICS_PORT).set_env_variable("LLAVA_IMAGE", image)

    _secret(task, values["storage_secret"], STORAGE_KEYS)
    kubernetes.use_config_map_as_env(task, values["storage_config"], {key: key for key in CONFIG_KEYS}, optional=True)
    if stage == "expand":
        _secret(task, values["teacher_secret"], ("OPENAI_API_KEY",))
    elif "hub_secret" in values and stage != "export":
        _secret(task, values["hub_secret"], ("HF_TOKEN",))

    # What a pod knows of itself: the run it belongs to labels its metrics; name and uid own what it creates.
    for variable, path in {
        "LLAVA_RUN": "metadata.labels['pipeline/runid']",
        "LLAVA_POD_NAME": "metadata.name",
        "LLAVA_METRICS_HOST": "status.podIP",
        "LLAVA_POD_UID": "metadata.uid",
        "LLAVA_NAMESPACE": "metadata.namespace",
    }.items():
        kubernetes.use_field_path_as_env(task, variable, path)

    labels = {"app.kubernetes.io/name": "llava", "app.kubernetes.io/component": stage, **options.labels}
    if options.queue:
        labels["kueue.x-k8s.io/queue-name"] = options.queue
    if options.priority:
        labels["kueue.x-k8s.io/priority-class"] = options.priority
    for key, value in labels.items():
        kubernetes.add_pod_label(task, key, value)


def _secret(task: PipelineTask, name: Any, keys: tuple[str, ...]) -> None:
    from kfp import kubernetes

    kubernetes.use_secret_as_env(task, name, {key: key for key in keys}, optional=True)
