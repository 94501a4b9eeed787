"""What only the cluster can say is wrong with a run: a Secret that is not there, a pod that no node can hold.

Kubeflow accepts such a run, and its pods then fail one after the other, or wait for ever. Which Secrets and ConfigMaps
a run names is read from the package. Kubernetes is told that all of them are optional, so what is missed is decided
here; before Kubeflow 2.15 it is not told, and a pod whose key is missing never starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.config import load_recipe
from llava.errors import UserError
from llava.multinode.train_on_nodes import read_node_settings
from llava.pipelines.checks.backend_version import KNOWS_OPTIONAL, backend_version
from llava.pipelines.checks.cluster import Forbidden, NotAsked, Reader
from llava.pipelines.checks.endpoints import Endpoint, artifact_endpoint, unreachable
from llava.pipelines.checks.nodes import PodRequest, why_impossible
from llava.pipelines.checks.retry_policy import policy_line
from llava.pipelines.checks.spec import read_documents
from llava.pipelines.checks.trainer import TRAINJOBS, why_too_old
from llava.pipelines.resources import group_of

# Service accounts Kubeflow gives a run that names none: standalone, multi-user.
_DEFAULT_ACCOUNTS = ("pipeline-runner", "default-editor")
_IDENTITIES = ("eks.amazonaws.com/role-arn", "iam.gke.io/gcp-service-account", "azure.workload.identity/client-id")


@dataclass(frozen=True)
class RunRequest:
    """A run as it would be submitted.

    Attributes:
        package: the compiled package.
        arguments: parameters the user gives; defaults of the package complete them.
        namespace: where its pods will be.
        service_account: of its pods; None: Kubeflow's.
        queue: Kueue LocalQueue; empty: none.
    """

    package: Path
    arguments: Mapping[str, Any]
    namespace: str
    service_account: str | None = None
    queue: str = ""


@dataclass(frozen=True)
class Findings:
    """`faults`: why the run cannot succeed. `notes`: worth a line; what could not be checked is among them."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_cluster(cluster: Reader, request: RunRequest) -> Findings:
    """Look at everything a run names or asks for.

    Raises:
        NotAsked: the cluster does not answer, or has no such namespace, so it is another one.
    """
    check = _Check(cluster, request)
    if check.read(f"/api/v1/namespaces/{request.namespace}") is None:
        raise NotAsked(f"{cluster.where} has no namespace {request.namespace!r}, so it is another cluster")
    check.account_and_queue()
    check.secrets()
    check.config_maps()
    check.claims()
    check.network()
    check.retries()
    check.nodes()
    return check.findings


class _Check:
    def __init__(self, cluster: Reader, request: RunRequest) -> None:
        spec, platform = read_documents(request.package)
        declared = spec["root"]["inputDefinitions"]["parameters"]
        self.cluster, self.request = cluster, request
        defaults = {name: known.get("defaultValue") for name, known in declared.items()}
        self.values = defaults | dict(request.arguments)
        self.chosen = {name for name, value in request.arguments.items() if value != defaults.get(name)}
        self.stages = [task for task in spec["root"]["dag"]["tasks"] if not task.startswith("importer")]
        self.executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
        self.findings = Findings()
        self.version = backend_version(self.read, request.namespace)
        self.all_needed = self.version is not None and self.version < KNOWS_OPTIONAL

    def read(self, path: str, what: str = "") -> dict[str, Any] | None:
        """An object, None when there is none; an empty one, and a note that names `what`, when it may not be read."""
        try:
            return self.cluster.get(path)
        except Forbidden:
            if what:
                self.findings.notes.append(f"{what}: you have no right to read it, so it was not checked")
            return {}

    def named(self, kind: str, name: str, what: str = "") -> dict[str, Any] | None:
        """An object of the run's namespace."""
        return self.read(f"/api/v1/namespaces/{self.request.namespace}/{kind}/{name}", what)

    def account_and_queue(self) -> None:
        namespace, account, queue = self.request.namespace, self.request.service_account, self.request.queue
        if account and self.named("serviceaccounts", account, f"service account {account}") is None:
            self.findings.faults.append(
                f"--service-account: there is no {account!r} in namespace {namespace}; the overlays in manifests/ make "
                "llava-runner"
            )
        path = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{namespace}/localqueues/{queue}"
        if queue and self.read(path, f"LocalQueue {queue}") is None:
            self.findings.faults.append(
                f"--queue: there is no LocalQueue {queue!r} in namespace {namespace}, so the pods would wait for ever; "
                f"what there is: kubectl -n {namespace} get localqueues"
            )

    def secrets(self) -> None:
        """Every Secret a stage takes its environment from: there, and with the keys it is asked for."""
        asked: dict[str, set[str]] = {}
        for executor in self.executors:
            for reference in executor.get("secretAsEnv", []):
                parameter = reference["secretNameParameter"]["componentInputParameter"]
                asked.setdefault(parameter, set()).update(pair["secretKey"] for pair in reference["keyToEnv"])
        for parameter, keys in sorted(asked.items()):
            name = self.values[parameter]
            found = self.named("secrets", name, f"{parameter} {name}")
            if found is None:
                self._missing_secret(parameter, sorted(keys))
            elif found and (lacking := sorted(keys - (found.get("data") or {}).keys())):
                self.findings.faults.append(
                    f"{parameter}: Secret {name!r} in namespace {self.request.namespace} has no {', '.join(lacking)}; "
                    f"it has {', '.join(sorted(found.get('data') or {})) or 'no keys'}"
                )

    def _missing_secret(self, parameter: str, keys: list[str]) -> None:
        """A fault when it was asked for by name, or when nothing works without it."""
        if parameter == "storage_secret" and not self._has_identity():
            why = "  (or give the pods' service account a workload identity)"
        elif parameter == "teacher_secret" and self._asks_default_teacher():
            why = "  (expand_teacher is openai)"
        elif parameter in self.chosen or self.all_needed:
            why = ""
        else:
            return
        if self.all_needed:
            why += "  (Kubeflow before 2.15 starts no pod without it; an empty value will do where none is needed)"
        name, namespace = self.values[parameter], self.request.namespace
        literals = " ".join(f"--from-literal={key}=..." for key in keys)
        self.findings.faults.append(
            f"{parameter}: there is no Secret {name!r} in namespace {namespace}; make it: "
            f"kubectl -n {namespace} create secret generic {name} {literals}{why}"
        )

    def _has_identity(self) -> bool:
        """Whether the pods' service account stands for an identity of the cloud, so that no key is needed."""
        account = self.request.service_account
        for name in (account,) if account else _DEFAULT_ACCOUNTS:
            found = self.named("serviceaccounts", name)
            if found and set(_IDENTITIES) & (found["metadata"].get("annotations") or {}).keys():
                return True
        return False

    def _asks_default_teacher(self) -> bool:
        # An endpoint of one's own may want no key.
        return self.values["expand_teacher"] == "openai" and not self.values["expand_teacher_endpoint"]

    def config_maps(self) -> None:
        """ConfigMaps of that kind: none is needed, but one that was asked for must be there."""
        references = [reference for executor in self.executors for reference in executor.get("configMapAsEnv", [])]
        for parameter in sorted({r["configMapNameParameter"]["componentInputParameter"] for r in references}):
            name = self.values[parameter]
            found = self.named("configmaps", name, f"{parameter} {name}")
            if found is not None:
                self._config_keys(parameter, found, references)
                continue
            absent = f"{parameter}: there is no ConfigMap {name!r} in namespace {self.request.namespace}"
            if parameter in self.chosen or self.all_needed:
                self.findings.faults.append(absent)
            else:
                self.findings.notes.append(f"{absent}; the stages will talk to AWS's own endpoint")

    def _config_keys(self, parameter: str, found: Mapping[str, Any], references: list[dict[str, Any]]) -> None:
        """Each key must be there where Kubeflow does not know that it is optional."""
        keys = {pair["configMapKey"] for reference in references for pair in reference["keyToEnv"]}
        lacking = sorted(keys - (found.get("data") or {}).keys())
        if found and lacking and self.all_needed:
            name, namespace = self.values[parameter], self.request.namespace
            data = ", ".join(f'"{key}": ""' for key in lacking)
            self.findings.faults.append(
                f"{parameter}: ConfigMap {name!r} has no {', '.join(lacking)}, without which Kubeflow before 2.15 "
                f"starts no pod: kubectl -n {namespace} patch configmap {name} --type merge "
                f"-p '{{\"data\": {{{data}}}}}'"
            )

    def claims(self) -> None:
        """Volumes that stages mount; a pod without its volume waits for ever."""
        mounts = [mount for executor in self.executors for mount in executor.get("pvcMount", [])]
        for name in sorted({mount["constant"] for mount in mounts}):
            if self.named("persistentvolumeclaims", name, f"PersistentVolumeClaim {name}") is None:
                self.findings.faults.append(
                    f"--hub-cache: there is no PersistentVolumeClaim {name!r} in namespace {self.request.namespace}; "
                    "manifests/components/cache-volume makes llava-hub-cache"
                )

    def network(self) -> None:
        """Whether the policies in force let the pods reach what the run names."""
        config = self.named("configmaps", str(self.values["storage_config"])) or {}
        launcher = self.named("configmaps", "kfp-launcher") or {}
        asked = [
            Endpoint(url, self.stages, source)
            for url, source in (
                ((config.get("data") or {}).get("AWS_ENDPOINT_URL"), f"ConfigMap {self.values['storage_config']}"),
                (artifact_endpoint(launcher.get("data") or {}), "ConfigMap kfp-launcher"),
            )
            if url
        ]
        if "expand" in self.stages and self.values["expand_teacher"] == "openai":
            url = str(self.values["expand_teacher_endpoint"] or "https://api.openai.com")
            asked.append(Endpoint(url, ["expand"], "expand_teacher_endpoint"))
        if url := str(self.values.get("evaluate_endpoint") or ""):
            asked.append(Endpoint(url, ["evaluate"], "evaluate_endpoint"))
        self.findings.faults.extend(unreachable(self.read, self.request.namespace, asked))

    def retries(self) -> None:
        """What becomes of a pod that does not end well."""
        self.findings.notes.append(policy_line(self.read, self.request.namespace))

    def nodes(self) -> None:
        """Whether the cluster has nodes that can hold the pods."""
        listed = self.read("/api/v1/nodes", "nodes")
        if not listed:
            return
        for group in dict.fromkeys(group_of(stage) for stage in self.stages):
            amounts = {"cpu": str(self.values[f"{group}_cpu"]), "memory": str(self.values[f"{group}_memory"])}
            pod, asked_by = PodRequest(amounts), f"{group}_cpu, {group}_memory"
            if f"{group}_accelerators" in self.values:
                accelerators = {self.values["accelerator_type"]: str(self.values[f"{group}_accelerators"])}
                pod, asked_by = self._accelerated({**accelerators, **amounts}, {}), f"{group}_accelerators, {asked_by}"
            if why := why_impossible(pod, listed["items"]):
                self.findings.faults.append(f"{asked_by}: {why}")
        for stage in self.stages:
            if f"{stage}_overrides" in self.values:
                self._train_job(stage, listed["items"])

    def _train_job(self, stage: str, nodes: list[dict[str, Any]]) -> None:
        """What a recipe with several nodes needs."""
        try:
            recipe = load_recipe(str(self.values["recipe"]), self.values[f"{stage}_overrides"] or None)
        except UserError:
            return  # a recipe inside the image; what can be wrong with others the preflight has said
        wanted = (recipe.pretrain if stage == "pretrain" else recipe.finetune).nodes
        if wanted == 1:
            return
        node = read_node_settings(str(self.values["train_job"]))
        definition = self.read(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{TRAINJOBS}", "Trainer's CRD")
        if definition and (fault := why_too_old(definition)):
            self.findings.faults.append(f"train_job: {stage}.nodes is {wanted}, and {fault}")
        path = f"/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/{node.runtime}"
        if self.read(path, f"ClusterTrainingRuntime {node.runtime}") is None:
            self.findings.faults.append(
                f"train_job: {stage}.nodes is {wanted}, and the cluster has no ClusterTrainingRuntime "
                f"{node.runtime!r}; install Kubeflow Trainer v2 with its runtimes"
            )
        amounts = {node.accelerator_type: str(node.accelerators), "cpu": node.cpu, "memory": node.memory}
        if why := why_impossible(self._accelerated(amounts, node.node_selector), nodes, wanted):
            self.findings.faults.append(f"train_job of {stage}: {why}")

    def _accelerated(self, amounts: Mapping[str, str], selector: Mapping[str, str]) -> PodRequest:
        return PodRequest(
            amounts,
            {**(self.values["accelerator_node_selector"] or {}), **selector},
            self.values["accelerator_tolerations"] or [],
        )
