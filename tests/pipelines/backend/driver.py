"""What Kubeflow's driver and launcher make of a compiled package, in a few lines of each, without a cluster.

Written after the backend's source (kubeflow/pipelines; each function names the file and the versions).
It follows the backend and not the local runner where the two differ: which name an execution is found under, what an
absent optional is, whose session opens an artifact, which security context wins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Spec = dict[str, Any]
_INPUT = re.compile(r"\{\{\$\.inputs\.parameters\['(.+?)'\]\}\}")


class DriverError(Exception):
    """The driver stops the run."""


@dataclass
class Task:
    """A container task as its pod starts.

    Attributes:
        executor_input: what stands for `{{$}}`.
        command: with its arguments, placeholders replaced.
        resources: Kubernetes' `requests` and `limits` of the main container, as text.
        pod: nodeSelector, tolerations, affinity, labels.
        environment: name -> (kind, object, key) of what comes from Secrets and ConfigMaps.
        needed: those of them without which Kubernetes starts no container (CreateContainerConfigError).
    """

    executor_input: Spec
    command: list[str]
    resources: dict[str, dict[str, str]]
    pod: Spec
    environment: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    needed: set[tuple[str, str, str]] = field(default_factory=set)


def run_package(
    documents: list[Spec], arguments: Mapping[str, Any], root: str, run: str = "run-1", version: str = "2.17"
) -> dict[str, Task]:
    """Every container task of a run on a version of Kubeflow Pipelines, in an order that their artifacts allow.

    Raises:
        DriverError: as the driver says it.
    """
    spec, platform = documents[0], documents[1]
    given = _root_parameters(spec, arguments)
    folder = f"{root}/{spec['pipelineInfo']['name']}/{run}"
    executions: dict[str, dict[str, str]] = {}  # name -> output -> URI
    found: dict[str, Task] = {}
    for key in _in_order(spec["root"]["dag"]["tasks"]):
        task = spec["root"]["dag"]["tasks"][key]
        component = spec["components"][task["componentRef"]["name"]]
        executor = spec["deploymentSpec"]["executors"][component["executorLabel"]]
        if "importer" in executor:
            # importer_launcher.go, `TaskName: l.task.GetTaskInfo().GetName()`: 2.14 to 2.17.
            source = executor["importer"]["artifactUri"]
            uri = source.get("constant")
            if uri is None:
                uri = given[task["inputs"]["parameters"][source["runtimeParameter"]]["componentInputParameter"]]
            executions[task["taskInfo"]["name"]] = {"artifact": str(uri)}
            continue
        values = _parameters(task, component, given)
        artifacts = {
            slot: _artifact(executions, source["taskOutputArtifact"])
            for slot, source in task.get("inputs", {}).get("artifacts", {}).items()
        }
        outputs = {
            name: f"{folder}/{key}/5f3a/{name}" for name in component.get("outputDefinitions", {}).get("artifacts", {})
        }
        executor_input = {
            "inputs": {
                "parameterValues": values,
                "artifacts": {slot: {"artifacts": [{"name": slot, "uri": uri}]} for slot, uri in artifacts.items()},
            },
            "outputs": {
                "artifacts": {name: {"artifacts": [{"name": name, "uri": uri}]} for name, uri in outputs.items()},
                "outputFile": "/tmp/kfp_outputs/output_metadata.json",
            },
        }
        executions[key] = outputs  # driver/container.go: ecfg.TaskName is the task's key, 2.14 to 2.17
        found[key] = _start(executor["container"], executor_input, given, _kubernetes(platform, component), version)
    return found


def _root_parameters(spec: Spec, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """driver/root_dag.go and the API server: arguments over defaults; an optional without either does not exist."""
    declared = spec["root"]["inputDefinitions"]["parameters"]
    if unknown := arguments.keys() - declared.keys():
        raise DriverError(f"unknown parameters {sorted(unknown)}")
    found = {}
    for name, definition in declared.items():
        if name in arguments:
            found[name] = arguments[name]
        elif "defaultValue" in definition:
            found[name] = definition["defaultValue"]
        elif not definition.get("isOptional"):
            raise DriverError(f"parameter {name} has no value")
    return found


def _parameters(task: Spec, component: Spec, given: Mapping[str, Any]) -> dict[str, Any]:
    """resolve.go, resolveInputs: by component input or constant; then the component's defaults (2.14 to 2.17)."""
    found: dict[str, Any] = {}
    constants = {}
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        if "componentInputParameter" in source:
            if source["componentInputParameter"] in given:
                found[name] = given[source["componentInputParameter"]]
        else:
            constants[name] = source["runtimeValue"]["constant"]
    for name, value in constants.items():
        found[name] = _INPUT.sub(lambda match: str(found[match.group(1)]), value) if isinstance(value, str) else value
    for name, definition in component.get("inputDefinitions", {}).get("parameters", {}).items():
        if name not in found and definition.get("defaultValue") is not None:
            found[name] = definition["defaultValue"]
        if name not in found and not definition.get("isOptional"):
            raise DriverError(f"cannot resolve parameter {name}")
    return found


def _artifact(executions: Mapping[str, Mapping[str, str]], source: Mapping[str, str]) -> str:
    """resolve.go, resolveUpstreamArtifacts: by the producer's key (2.14 to 2.17)."""
    producer = executions.get(source["producerTask"])
    if producer is None:
        raise DriverError(f'cannot find producer task "{source["producerTask"]}"')
    return producer[source["outputArtifactKey"]]


def _in_order(tasks: Mapping[str, Spec]) -> Iterator[str]:
    left = dict(tasks)
    while left:
        ready = [key for key, task in left.items() if not set(task.get("dependentTasks", [])) & left.keys()]
        for key in ready:
            yield key
            del left[key]


def _start(container: Spec, executor_input: Spec, given: Mapping[str, Any], kubernetes: Spec, version: str) -> Task:
    """driver.go, initPodSpecPatch and k8s.go, extendPodSpecPatch; launcher_v2.go, compileCmdAndArgs.

    `optional` of what comes from Secrets and ConfigMaps is a field of 2.15 and later
    (kubernetes_executor_config.proto); 2.14's driver drops unknown fields (UnmarshalString).
    """
    values = executor_input["inputs"]["parameterValues"]

    def text(value: str) -> str:
        return _INPUT.sub(lambda match: str(values[match.group(1)]), value)

    def parameter(source: Mapping[str, str]) -> Any:
        if "componentInputParameter" in source:
            return given[source["componentInputParameter"]]
        return source["constant"]

    asked = container.get("resources", {})
    requests = {"cpu": text(asked["resourceCpuRequest"]), "memory": text(asked["resourceMemoryRequest"])}
    limits = {"cpu": text(asked["resourceCpuLimit"]), "memory": text(asked["resourceMemoryLimit"])}
    if "accelerator" in asked:
        limits[text(asked["accelerator"]["resourceType"])] = text(asked["accelerator"]["resourceCount"])
    environment, needed = {}, set()
    for kind, name_of, key_of in (
        ("secret", "secretName", "secretKey"),
        ("configMap", "configMapName", "configMapKey"),
    ):
        for reference in kubernetes.get(f"{kind}AsEnv", []):
            name = str(parameter(reference[f"{name_of}Parameter"]))
            for pair in reference["keyToEnv"]:
                environment[pair["envVar"]] = (kind, name, pair[key_of])
                if not (reference.get("optional") and _at_least(version, 2, 15)):
                    needed.add((kind, name, pair[key_of]))
    pod = {
        "nodeSelector": _json_of(kubernetes.get("nodeSelector", {}).get("nodeSelectorJson"), parameter, {}),
        "tolerations": [
            each
            for item in kubernetes.get("tolerations", [])
            for each in _as_list(_json_of(item.get("tolerationJson"), parameter, []))
        ],
        "affinity": [
            _json_of(item.get("nodeAffinityJson"), parameter, {}) for item in kubernetes.get("nodeAffinity", [])
        ],
        "labels": kubernetes.get("podMetadata", {}).get("labels", {}),
    }
    whole = json.dumps(executor_input)
    command = [part.replace("{{$}}", whole) for part in [*container["command"], *container.get("args", [])]]
    return Task(executor_input, command, {"requests": requests, "limits": limits}, pod, environment, needed)


def _at_least(version: str, *wanted: int) -> bool:
    return tuple(map(int, version.split("."))) >= wanted


def _json_of(source: Mapping[str, str] | None, parameter: Any, absent: Any) -> Any:
    return absent if source is None else parameter(source)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _kubernetes(platform: Spec, component: Spec) -> Spec:
    executors: Spec = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return dict(executors.get(component["executorLabel"], {}))


def session_of(uri: str, root: str, launcher: Mapping[str, Any], *, imported: bool) -> dict[str, Any]:
    """Whose session opens an artifact: fetchNonDefaultBuckets of launcher_v2.go, importer_launcher.go (2.14 to 2.17).

    Args:
        uri: of the artifact.
        root: the pipeline root.
        launcher: `providers` of the ConfigMap `kfp-launcher`.
        imported: an importer recorded it.
    """
    bucket, scheme = uri.split("/")[2], uri.split(":")[0]
    if (scheme, bucket) == (root.split(":")[0], root.split("/")[2]):
        return dict((launcher.get(scheme) or {}).get("default") or {"fromEnv": True})
    if imported:
        return {"provider": scheme, "fromEnv": True}  # no endpoint, no path style: AWS's own
    return dict((launcher.get(scheme) or {}).get("default") or {"fromEnv": True})


def stage_security(
    version: str, *, workflow: Spec, template_defaults: Spec, install: Mapping[str, str]
) -> tuple[Spec, Spec]:
    """(pod's, main container's) security context of a stage.

    security_context.go, applySecurityContextToExecutorTemplate (2.16 and 2.17; earlier ones set nothing). Argo (v3.6 to
    v4.0.5, workflowpod.go): a template's own context replaces the workflow's whole, template defaults go under it.

    Args:
        version: of Kubeflow Pipelines.
        workflow: `workflowDefaults.spec.securityContext`.
        template_defaults: `workflowDefaults.spec.templateDefaults.securityContext`.
        install: data of the ConfigMap `pipeline-install-config`.
    """
    sets = _at_least(version, 2, 16)
    template = {**template_defaults, **({"seccompProfile": {"type": "RuntimeDefault"}} if sets else {})}
    main: Spec = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}} if sets else {}
    if sets:
        if user := install.get("defaultSecurityContextRunAsUser"):
            main["runAsUser"] = int(user)
        if group := install.get("defaultSecurityContextRunAsGroup"):
            main["runAsGroup"] = int(group)
        if nonroot := install.get("defaultSecurityContextRunAsNonRoot"):
            main["runAsNonRoot"] = nonroot == "true"
    return template or workflow, main


def restricted_faults(pod: Spec, container: Spec) -> list[str]:
    """What Pod Security `restricted` (Kubernetes' Pod Security Standards, v1.25 and later) forbids of a container."""
    effective = {**pod, **container}
    faults = []
    if not effective.get("runAsNonRoot"):
        faults.append("runAsNonRoot")
    if effective.get("runAsUser") == 0:
        faults.append("runAsUser")
    if (effective.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        faults.append("seccompProfile")
    if container.get("allowPrivilegeEscalation") is not False:
        faults.append("allowPrivilegeEscalation")
    if "ALL" not in (container.get("capabilities") or {}).get("drop", []):
        faults.append("capabilities")
    return faults
