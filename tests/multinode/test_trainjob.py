"""TrainJobs: what is sent is what Trainer accepts; made, adopted, followed, cancelled against a real HTTP server."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

from llava.errors import SettingsError
from llava.multinode import api as api_module
from llava.multinode.api import KubernetesApi, KubernetesError
from llava.multinode.follow import TrainJobCancelled, TrainJobFailed, run_train_job
from llava.multinode.trainjob import NodeSettings, TrainJobRequest, job_name, train_job
from llava.retrying import Pauses
from tests.multinode.api_server import JOBS, NAMESPACE, ApiServer, api_server
from tests.s3_server import free_port

POD: dict[str, Any] = {
    "metadata": {"name": "finetune-pod", "uid": "uid-1"},
    "spec": {
        "serviceAccountName": "llava-runner",
        "nodeSelector": {"pool": "a"},
        "tolerations": [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
        ],
        "imagePullSecrets": [{"name": "registry"}],
        "containers": [
            {"name": "wait", "env": [{"name": "WRONG", "value": "1"}]},
            {
                "name": "main",
                "env": [
                    {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                    {"name": "LLAVA_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                    {"name": "LLAVA_RUN", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x']"}}},
                    {"name": "ARGO_NODE_ID", "value": "1"},
                    {"name": "KFP_RETRY_INDEX", "value": "2"},
                ],
            },
        ],
    },
}


def request_of(**changes: Any) -> TrainJobRequest:
    given: dict[str, Any] = {
        "stage": "finetune",
        "run": "run-1",
        "nodes": 2,
        "command": ["python", "-m", "llava.multinode.train_node"],
        "image": "llava-train@sha256:0",
        "settings": NodeSettings(accelerators=8, queue="gpu", node_selector={"zone": "b"}),
        "pod": POD,
        "environment": {"LLAVA_RUN": "run-1"},
    }
    return TrainJobRequest(**{**given, **changes})


def test_the_manifest_is_what_trainers_own_models_accept() -> None:
    manifest = train_job(request_of())
    parsed = TrainerV1alpha1TrainJob.from_dict(manifest)
    assert parsed is not None
    # What the models do not know they drop: nothing of ours may go missing.
    assert parsed.to_dict() == manifest


def test_the_manifest_says_what_was_asked() -> None:
    manifest = train_job(request_of())
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
    (owner,) = manifest["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Pod", "finetune-pod", "uid-1")
    trainer = manifest["spec"]["trainer"]
    assert trainer["numNodes"] == 2 and trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "8"
    environment = {item["name"]: item for item in trainer["env"]}
    assert environment["AWS_ACCESS_KEY_ID"]["valueFrom"] == {"secretKeyRef": {"name": "s", "key": "k"}}
    assert environment["LLAVA_RUN"] == {"name": "LLAVA_RUN", "value": "run-1"}
    assert not {"LLAVA_POD_UID", "ARGO_NODE_ID", "KFP_RETRY_INDEX", "WRONG"} & environment.keys()
    patch = manifest["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    pod = patch["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "a", "zone": "b"} and pod["serviceAccountName"] == "llava-runner"
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert pod["volumes"][0]["emptyDir"]["medium"] == "Memory"


def restricted_faults(pod: dict[str, Any]) -> list[str]:
    """What Pod Security `restricted` finds, as the standard's page lists it, for the fields pods of ours have."""
    security, faults = pod.get("securityContext") or {}, []
    if security.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        faults.append("seccompProfile")
    for container in pod["containers"]:
        own = container.get("securityContext") or {}
        if own.get("allowPrivilegeEscalation") is not False:
            faults.append("allowPrivilegeEscalation")
        if "ALL" not in own.get("capabilities", {}).get("drop", []):
            faults.append("capabilities")
        if own.get("runAsNonRoot", security.get("runAsNonRoot")) is not True:
            faults.append("runAsNonRoot")
        if own.get("runAsUser", security.get("runAsUser")) == 0:
            faults.append("runAsUser")
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"}
    allowed |= {"persistentVolumeClaim", "projected", "secret"}
    return faults + [volume["name"] for volume in pod["volumes"] if not volume.keys() & allowed]


def node_template(manifest: dict[str, Any]) -> dict[str, Any]:
    patch = manifest["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    template: dict[str, Any] = patch["template"]["spec"]["template"]
    return template


def test_nodes_pass_pod_security_restricted_and_carry_no_sidecar() -> None:
    template = node_template(train_job(request_of()))
    assert restricted_faults(template["spec"]) == []
    assert "runAsUser" not in template["spec"]["securityContext"], "the image's own"
    assert template["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    chosen = {**POD, "spec": {**POD["spec"], "securityContext": {"runAsUser": 65532, "fsGroup": 65532}}}
    security = node_template(train_job(request_of(pod=chosen)))["spec"]["securityContext"]
    assert (security["runAsUser"], security["fsGroup"], security["runAsNonRoot"]) == (65532, 65532, True)


def test_the_job_waits_in_the_queue_of_the_stages_pod() -> None:
    queue, priority = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
    labelled = {**POD, "metadata": {**POD["metadata"], "labels": {queue: "llava-training", priority: "research"}}}
    own = train_job(request_of(pod=labelled, settings=NodeSettings(accelerators=8)))["metadata"]["labels"]
    assert (own[queue], own[priority]) == ("llava-training", "research")
    assert train_job(request_of(pod=labelled))["metadata"]["labels"][queue] == "gpu", "the setting goes first"
    assert queue not in train_job(request_of(settings=NodeSettings()))["metadata"]["labels"]


@pytest.mark.parametrize(("hours", "seconds"), [(1, 3600), (168, 604_800)])
def test_a_deadline_is_in_seconds(hours: int, seconds: int) -> None:
    """`activeDeadlineSeconds`, as Kubernetes has it for jobs."""
    settings = request_of().settings.model_copy(update={"deadline_hours": hours})
    assert train_job(request_of(settings=settings))["spec"]["activeDeadlineSeconds"] == seconds


def test_the_volume_for_base_models_is_the_nodes_too() -> None:
    (main,) = [container for container in POD["spec"]["containers"] if container["name"] == "main"]
    pod: dict[str, Any] = {
        "metadata": POD["metadata"],
        "spec": {
            "volumes": [
                {"name": "llava-hub-cache", "persistentVolumeClaim": {"claimName": "llava-hub-cache"}},
                {"name": "scratch", "emptyDir": {}},
                {"name": "token", "projected": {}},
            ],
            "containers": [
                {
                    **main,
                    "env": [{"name": "HF_HOME", "value": "/hub-cache"}],
                    "volumeMounts": [
                        {"name": "llava-hub-cache", "mountPath": "/hub-cache"},
                        {"name": "token", "mountPath": "/var/run/secrets"},
                    ],
                }
            ],
        },
    }
    for given, hub, names in (
        (pod, "/hub-cache", ["shm", "scratch", "llava-hub-cache"]),
        (POD, "/scratch/hub", ["shm", "scratch"]),
    ):
        spec = train_job(request_of(pod=given))["spec"]
        assert {"name": "HF_HOME", "value": hub} in spec["trainer"]["env"]
        patch = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
        found = patch["template"]["spec"]["template"]["spec"]
        assert [volume["name"] for volume in found["volumes"]] == names
        assert [mount["name"] for mount in found["containers"][0]["volumeMounts"]] == names


def test_the_name_is_of_run_and_stage() -> None:
    assert job_name("finetune", "a") == job_name("finetune", "a") != job_name("finetune", "b")
    assert job_name("pretrain", "a") != job_name("finetune", "a")
    assert len(job_name("pretrain", "x" * 500)) <= 40


def test_on_cpu_no_accelerator_is_asked_for() -> None:
    trainer = train_job(request_of(settings=NodeSettings()))["spec"]["trainer"]
    assert set(trainer["resourcesPerNode"]["limits"]) == {"cpu", "memory"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setattr(api_module, "_PAUSES", Pauses(0.01))
    with api_server() as running:
        yield running


@pytest.fixture
def api(server: ApiServer) -> KubernetesApi:
    return KubernetesApi(server.url, NAMESPACE)


def later(act: Callable[[], object], seconds: float = 0.3) -> None:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()


def run(api: KubernetesApi, manifest: dict[str, Any] | None = None) -> list[str]:
    said: list[str] = []
    try:
        run_train_job(api, manifest or train_job(request_of()), poll_s=0.05, say=said.append)
    except Exception as error:
        error.said = said  # type: ignore[attr-defined]
        raise
    return said


def test_made_followed_complete(server: ApiServer, api: KubernetesApi) -> None:
    server.logs["node-0"] = ["step 1", "step 2"]
    name = job_name("finetune", "run-1")
    later(lambda: server.logs["node-0"].append("step 3"))
    later(lambda: server.condition(name, "Complete"), 0.6)
    said = run(api)
    assert [line for line in said if line.startswith("step")] == ["step 1", "step 2", "step 3"]
    assert said[0] == f"trainjob  {name}: made, 2 nodes"
    assert server.only_job()["spec"]["trainer"]["numNodes"] == 2, "complete jobs stay until their owner goes"


@pytest.mark.slow
def test_a_broken_log_connection_repeats_and_loses_nothing(server: ApiServer, api: KubernetesApi) -> None:
    server.logs["node-0"] = [f"step {number}" for number in range(5)]
    server.breaks = 3
    later(lambda: server.condition(job_name("finetune", "run-1"), "Complete"), 1.0)
    said = [line for line in run(api) if line.startswith("step")]
    assert said == [f"step {number}" for number in range(5)]


def test_a_retried_pod_adopts_the_job_and_owns_it(server: ApiServer, api: KubernetesApi) -> None:
    manifest = train_job(request_of())
    api.create(JOBS, manifest)
    retried = {**POD, "metadata": {"name": "finetune-pod-2", "uid": "uid-2"}}
    later(lambda: server.condition(manifest["metadata"]["name"], "Complete"))
    said = run(api, train_job(request_of(pod=retried)))
    assert "adopted" in said[0] and not server.asked("DELETE")
    assert server.only_job()["metadata"]["ownerReferences"][0]["uid"] == "uid-2"


def test_a_job_that_is_being_deleted_is_not_adopted(server: ApiServer, api: KubernetesApi) -> None:
    """It goes with the pod that owned it; one who adopts it in between loses it a moment later."""
    manifest = train_job(request_of())
    api.create(JOBS, manifest)
    server.only_job()["metadata"]["deletionTimestamp"] = "2026-08-21T21:10:03Z"
    server.on_create = lambda job: later(lambda: server.condition(job["metadata"]["name"], "Complete"))
    later(lambda: server.jobs.pop(manifest["metadata"]["name"]), 0.2)
    said = run(api, train_job(request_of()))
    assert "is being deleted" in said[0] and "made, 2 nodes" in said[1] and not server.asked("PATCH")


def test_a_failed_or_different_job_is_replaced(server: ApiServer, api: KubernetesApi) -> None:
    for earlier, expected in (
        (train_job(request_of()), "an earlier attempt failed"),
        (train_job(request_of(nodes=4)), "one with other settings"),
    ):
        server.jobs.clear()
        api.create(JOBS, earlier)
        name = earlier["metadata"]["name"]
        if expected.startswith("an earlier"):
            server.condition(name, "Failed", "node lost")
        server.on_create = lambda job: later(lambda: server.condition(job["metadata"]["name"], "Complete"))
        said = run(api)
        assert expected in said[0] and "made, 2 nodes" in said[1]
        server.on_create = lambda job: None


def test_failure_says_why(server: ApiServer, api: KubernetesApi) -> None:
    server.logs["node-0"] = ["out of memory"]
    later(lambda: server.condition(job_name("finetune", "run-1"), "Failed", "pod failed with code 1"))
    with pytest.raises(TrainJobFailed, match="failed: pod failed with code 1") as caught:
        run(api)
    assert "out of memory" in caught.value.said  # type: ignore[attr-defined]


def test_deleted_from_outside(server: ApiServer, api: KubernetesApi) -> None:
    later(server.jobs.clear)
    with pytest.raises(TrainJobFailed, match="was deleted from outside"):
        run(api)


def test_waiting_for_a_queue_is_said_once(server: ApiServer, api: KubernetesApi) -> None:
    name = job_name("finetune", "run-1")
    server.on_create = lambda job: server.condition(name, "Suspended", "no quota")
    later(lambda: server.condition(name, "Complete"), 0.5)
    said = run(api)
    assert [line for line in said if "waits for its queue" in line] == [
        f"trainjob  {name}: waits for its queue no quota"
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_cancelled_pod_deletes_its_job(number: signal.Signals, server: ApiServer, api: KubernetesApi) -> None:
    before = signal.getsignal(number)
    later(lambda: os.kill(os.getpid(), number), 0.5)
    with pytest.raises(TrainJobCancelled, match="stopped and deleted"):
        run(api)
    assert not server.jobs and server.asked("DELETE") == [f"{JOBS}/{job_name('finetune', 'run-1')}"]
    assert signal.getsignal(number) is before


@pytest.mark.slow
def test_a_faltering_api_server_is_asked_again_and_not_for_ever(server: ApiServer, api: KubernetesApi) -> None:
    server.failures = [500, 503, 429]
    server.on_create = lambda job: later(lambda: server.condition(job["metadata"]["name"], "Complete"))
    run(api)
    server.failures = [500] * 50
    with pytest.raises(KubernetesError, match="gave up after 6 attempts; the last: 500"):
        api.get(JOBS)
    assert len(server.failures) == 50 - api_module.ATTEMPTS


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, "the service account needs the role of manifests/components/multi-node"), (422, "refused (422)"),
     (404, "is Kubeflow Trainer installed?")],
)  # fmt: skip
def test_a_refusal_says_what_to_do(status: int, said: str, server: ApiServer, api: KubernetesApi) -> None:
    server.failures = [status]
    with pytest.raises(KubernetesError) as caught:
        run(api)
    assert said in str(caught.value)


def test_outside_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("LLAVA_KUBERNETES_API", raising=False)
    with pytest.raises(SettingsError, match="several nodes need Kubernetes"):
        KubernetesApi()


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "_PAUSES", Pauses(0.01))
    with pytest.raises(KubernetesError, match=r"gave up after 6 attempts; the last: no answer"):
        KubernetesApi(f"http://127.0.0.1:{free_port()}", NAMESPACE).get(JOBS)
