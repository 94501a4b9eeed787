"""What a cluster says against a run before it is submitted: a real HTTP API behind a kubeconfig, real submits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline
from llava.pipelines.commands import main
from tests.multinode.api_server import NAMESPACE, ApiServer, api_server
from tests.pipelines.kfp_server import KfpServer, kfp_server
from tests.s3_server import free_port

IN_NAMESPACE = f"/api/v1/namespaces/{NAMESPACE}"
STORAGE = f"{IN_NAMESPACE}/secrets/llava-storage"
QUEUE = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/localqueues/gpu"
RUNTIME = "/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/torch-distributed"
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def node(name: str, gpus: int = 0, cpu: str = "16", memory: str = "128Gi", **changes: Any) -> dict[str, Any]:
    """A node as the API server lists it; one with GPUs is tainted, as GPU nodes are."""
    allocatable = {"cpu": cpu, "memory": memory, **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    return {
        "metadata": {"name": name, "labels": changes.get("labels", {"kubernetes.io/os": "linux"})},
        "spec": {"taints": changes.get("taints", [GPU_TAINT] if gpus else [])},
        "status": {"allocatable": allocatable},
    }


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A cluster where everything is as it should be, and a kubeconfig for it."""
    with api_server() as server:
        server.objects = {
            IN_NAMESPACE: {"metadata": {"name": NAMESPACE}},
            STORAGE: {"data": {"AWS_ACCESS_KEY_ID": "eA==", "AWS_SECRET_ACCESS_KEY": "eA=="}},
            f"{IN_NAMESPACE}/configmaps/llava-storage": {"data": {}},
            f"{IN_NAMESPACE}/serviceaccounts/llava-runner": {"metadata": {"name": "llava-runner"}},
            "/api/v1/nodes": {"items": [node("cpu-1"), node("gpu-1", gpus=8, cpu="96", memory="900Gi")]},
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [
                {"name": "here", "context": {"cluster": "here", "user": "me"}},
                {"name": "nowhere", "context": {"cluster": "nowhere", "user": "me"}},
            ],
            "clusters": [
                {"name": "here", "cluster": {"server": server.url}},
                {"name": "nowhere", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}},
            ],
            "users": [{"name": "me", "user": {"token": "of-me"}}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield server


@pytest.fixture
def kubeflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with kfp_server() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        yield server


def run_command(*arguments: str) -> int:
    """`pipeline.py` with these arguments; its exit status."""
    try:
        return main(pipeline.build, list(arguments))
    except SystemExit as end:
        return int(end.code or 0)


class Submit:
    """`pipeline.py submit` as a person types it."""

    def __init__(self, kubeflow: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
        self.kubeflow, self.capsys = kubeflow, capsys
        self.retries: list[str] = []  # the line on the retry policy in force

    def __call__(self, *arguments: str, package: str = "only-pretrain", **parameters: str) -> str:
        """What it said on stderr; whether it submitted is what `kubeflow.runs` shows."""
        usual = {"pretrain_data_uri": "s3://b/rows.json", "recipe": "tiny"} if package == "only-pretrain" else {}
        given = {**usual, **parameters}
        pairs = [part for name, value in given.items() for part in ("--param", f"{name}={value}")]
        before = len(self.kubeflow.runs)
        code = run_command("submit", "--package", package, "--namespace", NAMESPACE, *arguments, *pairs)
        lines = self.capsys.readouterr().err.splitlines(keepends=True)
        self.retries = [line for line in lines if line.startswith("note: retries:")]
        said = "".join(line for line in lines if line not in self.retries)
        assert code == (0 if len(self.kubeflow.runs) > before else 2), said
        return said


@pytest.fixture
def submit(kubeflow: KfpServer, capsys: pytest.CaptureFixture[str]) -> Submit:
    return Submit(kubeflow, capsys)


@pytest.mark.slow
def test_where_nothing_is_missing_nothing_is_said(cluster: ApiServer, kubeflow: KfpServer, submit: Submit) -> None:
    assert submit("--service-account", "llava-runner", train_accelerators="8") == ""
    assert kubeflow.runs and cluster.tokens == {"Bearer of-me"}
    assert {method for method, _ in cluster.requests} == {"GET"}


def test_a_missing_secret_is_named_with_the_command_that_makes_it(
    cluster: ApiServer, kubeflow: KfpServer, submit: Submit
) -> None:
    del cluster.objects[STORAGE]
    said = submit()
    assert not kubeflow.of("POST", "/runs")
    assert f"context 'here' ({cluster.url}) cannot run this:" in said
    assert f"storage_secret: there is no Secret 'llava-storage' in namespace {NAMESPACE}" in said
    assert (
        f"kubectl -n {NAMESPACE} create secret generic llava-storage --from-literal=AWS_ACCESS_KEY_ID=... "
        "--from-literal=AWS_SECRET_ACCESS_KEY=..." in said
    )
    assert "--cluster-check warn submits it all the same" in said


def test_warn_submits_and_off_does_not_ask(cluster: ApiServer, kubeflow: KfpServer, submit: Submit) -> None:
    del cluster.objects[STORAGE]
    assert "warning: storage_secret: there is no Secret" in submit("--cluster-check", "warn")
    cluster.requests.clear()
    assert submit("--cluster-check", "off") == ""
    assert len(kubeflow.runs) == 2 and not cluster.requests


def test_a_secret_without_the_key_that_is_read(cluster: ApiServer, submit: Submit) -> None:
    cluster.objects[STORAGE] = {"data": {"AWS_ACCESS_KEY_ID": "eA==", "accesskey": "eA=="}}
    said = submit()
    assert "has no AWS_SECRET_ACCESS_KEY; it has AWS_ACCESS_KEY_ID, accesskey" in said and "eA==" not in said


def test_under_workload_identity_no_storage_secret_is_needed(
    cluster: ApiServer, kubeflow: KfpServer, submit: Submit
) -> None:
    del cluster.objects[STORAGE]
    account = cluster.objects[f"{IN_NAMESPACE}/serviceaccounts/llava-runner"]
    account["metadata"]["annotations"] = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/llava"}
    assert submit("--service-account", "llava-runner") == "" and kubeflow.runs


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"hub_secret": "my-hub"}, "hub_secret: there is no Secret 'my-hub'"),
        ({"storage_config": "my-store"}, "storage_config: there is no ConfigMap 'my-store'"),
        ({}, ""),  # llava-hub is absent, and nobody asked for it
        ({"hub_secret": "llava-hub"}, ""),  # nor here: it is the default
    ],
)
def test_what_was_asked_for_by_name_must_be_there(
    parameters: dict[str, str], said: str, cluster: ApiServer, kubeflow: KfpServer, submit: Submit
) -> None:
    found = submit(**parameters)
    assert said in found and bool(kubeflow.runs) is (said == "")


@pytest.mark.slow
@pytest.mark.parametrize(("endpoint", "wanted"), [("", True), ("http://vllm:8000/v1", False)])
def test_a_hosted_teacher_needs_its_key(
    endpoint: str, wanted: bool, cluster: ApiServer, kubeflow: KfpServer, submit: Submit
) -> None:
    given = {"expand_annotations_uri": "s3://b/a", "expand_teacher": "openai", "expand_teacher_endpoint": endpoint}
    given["expand_teacher_model"] = "m"
    said = submit(package="only-expand", **given)
    assert ("create secret generic llava-teacher --from-literal=OPENAI_API_KEY=" in said) is wanted
    assert bool(kubeflow.runs) is not wanted


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"train_accelerators": "16"}, "16 nvidia.com/gpu in one pod; the most that one node offers is 8 (gpu-1)"),
        ({"accelerator_type": "amd.com/gpu"}, "1 amd.com/gpu in one pod; no node of this cluster has any"),
        ({"train_memory": "2Ti"}, "2Ti memory in one pod; the most that one node offers is 900Gi (gpu-1)"),
        ({"accelerator_tolerations": "[]"}, "gpu-1 has the taint nvidia.com/gpu=present:NoSchedule, which is not tol"),
        ({"accelerator_node_selector": '{"pool": "a"}'}, "no node has the labels {'pool': 'a'}"),
        ({"train_accelerators": "0", "train_cpu": "100"}, "100 cpu in one pod; the most that one node offers is 96"),
    ],
)
def test_a_pod_that_no_node_can_hold_is_refused(
    parameters: dict[str, str], said: str, cluster: ApiServer, kubeflow: KfpServer, submit: Submit
) -> None:
    found = submit(**parameters)
    assert "train_accelerators, train_cpu, train_memory: " in found and said in found
    assert not kubeflow.runs


def test_a_cpu_stage_is_checked_too(cluster: ApiServer, submit: Submit) -> None:
    cluster.objects["/api/v1/nodes"] = {"items": [node("laptop", cpu="4", memory="8Gi")]}
    said = submit(package="only-export", model_uri="s3://b/model")
    assert "export_cpu, export_memory: 32Gi memory in one pod; the most that one node offers is 8Gi (laptop)" in said


def test_several_nodes_need_room_for_all_of_them_and_a_runtime(
    cluster: ApiServer, kubeflow: KfpServer, submit: Submit
) -> None:
    parameters = {
        "pretrain_overrides": '{"pretrain.nodes": 2}',
        "train_accelerators": "0",
        "train_job": '{"accelerators": 8}',
    }
    said = submit(**parameters)
    assert "train_job: pretrain.nodes is 2, and the cluster has no ClusterTrainingRuntime 'torch-distributed'" in said
    assert "2 pods of 8 nvidia.com/gpu, 8 cpu, 64Gi memory are asked for at once; all nodes together can hold 1" in said
    cluster.objects[RUNTIME] = {"metadata": {"name": "torch-distributed"}}
    cluster.objects["/api/v1/nodes"]["items"].append(node("gpu-2", gpus=8))
    assert submit(**parameters) == "" and kubeflow.runs


def test_account_and_queue(cluster: ApiServer, kubeflow: KfpServer, submit: Submit) -> None:
    said = submit("--service-account", "nobody", "--queue", "gpu")
    assert "--service-account: there is no 'nobody'" in said and "--queue: there is no LocalQueue 'gpu'" in said
    cluster.objects[QUEUE] = {"metadata": {"name": "gpu"}}
    assert submit("--queue", "gpu") == "" and kubeflow.runs


def test_a_volume_that_is_mounted_must_be_there(cluster: ApiServer, kubeflow: KfpServer, submit: Submit) -> None:
    said = submit("--hub-cache", "llava-hub-cache")
    assert f"--hub-cache: there is no PersistentVolumeClaim 'llava-hub-cache' in namespace {NAMESPACE}" in said
    cluster.objects[f"{IN_NAMESPACE}/persistentvolumeclaims/llava-hub-cache"] = {"spec": {}}
    assert submit("--hub-cache", "llava-hub-cache") == "" and kubeflow.runs


def test_what_may_not_be_read_is_said_and_no_fault(cluster: ApiServer, kubeflow: KfpServer, submit: Submit) -> None:
    cluster.forbidden = {STORAGE, "/api/v1/nodes"}
    said = submit(train_accelerators="32")
    assert "note: storage_secret llava-storage: you have no right to read it, so it was not checked" in said
    assert "note: nodes: you have no right to read it" in said and kubeflow.runs


@pytest.mark.parametrize("why", ["another cluster", "nobody there", "no kubeconfig", "no rights at all"])
def test_where_the_cluster_cannot_be_asked_one_line_says_so(
    why: str, cluster: ApiServer, kubeflow: KfpServer, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: list[str] = []
    if why == "another cluster":
        del cluster.objects[IN_NAMESPACE]
        said = f"has no namespace '{NAMESPACE}', so it is another cluster"
    elif why == "nobody there":
        arguments, said = ["--context", "nowhere"], "context 'nowhere' (http://127.0.0.1"
    elif why == "no kubeconfig":
        monkeypatch.delenv("KUBECONFIG")
        said = "no kubeconfig"
    else:
        cluster.failures = [401]
        said = "refused (401"
    found = submit(*arguments)
    assert found.startswith("note: Secrets and nodes were not checked: ") and said in found
    assert found.count("\n") == 1 and kubeflow.runs


def test_a_context_that_is_not_there(cluster: ApiServer, kubeflow: KfpServer, submit: Submit) -> None:
    said = submit("--context", "prod")
    assert "prod" in said and str(cluster.url) not in said and not kubeflow.runs


def test_rerun_asks_too(
    cluster: ApiServer, kubeflow: KfpServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.pipelines.test_service import leave

    leave(str(tmp_path / "store"), "run-a", ["pretrain"])
    kubeflow.runs["run-a"] = {"run_id": "run-a", "runtime_config": {"pipeline_root": str(tmp_path / "store")}}
    del cluster.objects[STORAGE]
    call = ["rerun", "--run", "run-a", "--only", "pretrain", "--namespace", NAMESPACE, "--param", "recipe=tiny"]
    assert run_command(*call) == 2
    assert "storage_secret: there is no Secret" in capsys.readouterr().err and not kubeflow.of("POST", "/runs")


def test_the_retry_policy_in_force_is_said_in_one_line(cluster: ApiServer, kubeflow: KfpServer, submit: Submit) -> None:
    submit()
    assert "workflow-controller-configmap cannot be read" in submit.retries[0]
    defaults = "spec: {templateDefaults: {retryStrategy: {limit: '2', retryPolicy: OnError}}}"
    where = "/api/v1/namespaces/kubeflow/configmaps/workflow-controller-configmap"
    cluster.objects[where] = {"data": {"workflowDefaults": defaults}}
    submit()
    (line,) = submit.retries
    assert "the policy in force is OnError: a lost pod is retried; one that failed, was evicted" in line
    assert len(kubeflow.runs) == 2


def test_a_store_that_the_network_policy_keeps_away_is_refused(
    cluster: ApiServer, kubeflow: KfpServer, submit: Submit
) -> None:
    cluster.objects[f"{IN_NAMESPACE}/configmaps/llava-storage"] = {
        "data": {"AWS_ENDPOINT_URL": "http://minio.storage.svc.cluster.local:9000"}
    }
    assert submit() == "" and kubeflow.runs, "no policy, so everything is open"
    policy = {"spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 443}]}]}}
    cluster.objects[f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies"] = {"items": [policy]}
    said = submit()
    assert "ConfigMap llava-storage: the NetworkPolicies of namespace" in said and "keep pretrain from" in said


def test_trainer_without_runtime_patches_is_too_old(cluster: ApiServer, submit: Submit) -> None:
    cluster.objects[RUNTIME] = {"metadata": {"name": "torch-distributed"}}
    schema: dict[str, Any] = {"openAPIV3Schema": {"properties": {"spec": {"properties": {"trainer": {}}}}}}
    definition = {"spec": {"versions": [{"name": "v1alpha1", "served": True, "schema": schema}]}}
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/trainjobs.trainer.kubeflow.org"
    cluster.objects[path] = definition
    said = submit(
        pretrain_overrides='{"pretrain.nodes": 2}',
        train_accelerators="0",
        train_job='{"cpu": "1", "memory": "1Gi"}',
        images_uri="s3://b/i",
    )
    assert "has no spec.runtimePatches and no spec.activeDeadlineSeconds; Trainer 2.2 or later is needed" in said
