"""What must be true of a compiled package beyond being a valid pipeline spec.

Each rule is a trap that compiles, and often runs locally, and then fails or lies on a cluster. Rules read the compiled
YAML alone, so they also hold for a package somebody edited.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llava.pipelines.checks.preflight import MAX_PARAMETER_BYTES
from llava.pipelines.checks.spec import read_documents, read_spec

ARGS = ["--executor-input", "{{$}}"]
_CHANNEL = re.compile(r"^\{\{\$\.inputs\.parameters\['pipelinechannel--(.+?)'\]\}\}$")
_TRAINING = ("pretrain", "finetune")

Spec = dict[str, Any]
Rule = Callable[[Spec, Spec], Iterator[str]]
RULES: dict[str, Rule] = {}


def rule(check: Rule) -> Rule:
    """Register a rule under its function's name; a second one of that name is a mistake."""
    assert check.__name__ not in RULES, check.__name__
    RULES[check.__name__] = check
    return check


def lint(package: Path) -> list[str]:
    """Every fault of a compiled package as `rule: what`, empty when it is sound."""
    documents = read_documents(package)
    spec = documents[0]
    platform = documents[1] if len(documents) > 1 else {}
    return [f"{name}: {fault}" for name, check in RULES.items() for fault in check(spec, platform)]


@rule
def args_are_exactly_the_executor_input(spec: Spec, platform: Spec) -> Iterator[str]:
    """Any other placeholder resolves locally and breaks, or resolves differently, on a cluster."""
    for name, container in _containers(spec):
        if container.get("args") != ARGS:
            yield f"{name}: args are {container.get('args')}; expected {ARGS}"
        if any("{{" in part for part in container.get("command", [])):
            yield f"{name}: a placeholder in the command {container['command']}"


@rule
def container_specs_are_distinct(spec: Spec, platform: Spec) -> Iterator[str]:
    """The backend takes two components of equal image, command and args for one."""
    seen: dict[str, str] = {}
    for name, container in _containers(spec):
        key = json.dumps([container.get("image"), container.get("command"), container.get("args")])
        if key in seen:
            yield f"{name} and {seen[key]} have the same image, command and args"
        seen[key] = name


@rule
def resources_are_strings(spec: Spec, platform: Spec) -> Iterator[str]:
    """An integer parameter as accelerator count compiles, and the pod silently gets no accelerator."""
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, container in _containers(spec):
        resources = container.get("resources", {})
        flat = {**resources, **resources.get("accelerator", {})}
        for field, value in flat.items():
            if not field.startswith("resource"):
                continue
            channel = _CHANNEL.match(str(value))
            kind = declared.get(channel.group(1), {}).get("parameterType") if channel else None
            if not isinstance(value, str) or (channel and kind != "STRING"):
                shown = kind or type(value).__name__
                yield f"{name}: {field} is {value!r} of type {shown}; expected a STRING parameter or text"


@rule
def importers_read_root_parameters(spec: Spec, platform: Spec) -> Iterator[str]:
    """An importer fed by a task's output has no URI when its driver runs."""
    for dag_name, task_name, task in _tasks(spec):
        executor = _executor_of(spec, task)
        if "importer" not in executor:
            continue
        if dag_name != "root":
            yield f"{task_name}: an importer below the root"
        for parameter, source in task.get("inputs", {}).get("parameters", {}).items():
            if "taskOutputParameter" in source:
                yield f"{task_name}: {parameter} comes from a task's output"
        if executor["importer"].get("reimport"):
            yield f"{task_name}: reimport makes a new artifact each time, so nothing after it comes from the cache"


@rule
def importers_keep_their_key(spec: Spec, platform: Spec) -> Iterator[str]:
    """The backend records an importer under its display name and looks for its key: "cannot find producer task"."""
    for _, task_name, task in _tasks(spec):
        shown = task.get("taskInfo", {}).get("name", "")
        if "importer" in _executor_of(spec, task) and shown != task_name:
            yield f"{task_name}: renamed to {shown!r}; tasks that read an importer's artifact would not find it"


@rule
def retry_windows_hold_every_attempt(spec: Spec, platform: Spec) -> Iterator[str]:
    """Past the window nothing is retried, and a retried pod that still runs at its end is killed there."""
    kubernetes = _kubernetes(platform)
    for _, task_name, task in _tasks(spec):
        policy = task.get("retryPolicy", {})
        if not policy.get("maxRetryCount"):
            continue
        label = spec["components"][task["componentRef"]["name"]].get("executorLabel", "")
        deadline = int(kubernetes[label].get("activeDeadlineSeconds", 0))
        retries, pause = int(policy["maxRetryCount"]), _seconds(policy.get("backoffDuration", "0s"))
        pauses = sum(pause * policy.get("backoffFactor", 2.0) ** retry for retry in range(retries))
        needed, window = (retries + 1) * deadline + pauses, _seconds(policy.get("backoffMaxDuration", "3600s"))
        if window < needed:
            yield f"{task_name}: backoffMaxDuration is {window:.0f} s; {retries + 1} attempts may take {needed:.0f} s"


@rule
def no_artifact_one_of(spec: Spec, platform: Spec) -> Iterator[str]:
    """kfp.local refuses an artifact chosen between branches."""
    for name, component in (("root", spec["root"]), *spec.get("components", {}).items()):
        for output, selector in component.get("dag", {}).get("outputs", {}).get("artifacts", {}).items():
            if len(selector.get("artifactSelectors", [])) != 1:
                yield f"{name}: output {output} has {len(selector.get('artifactSelectors', []))} sources; expected 1"


@rule
def no_artifact_lists(spec: Spec, platform: Spec) -> Iterator[str]:
    """Lists of artifacts fail locally."""
    for name, component in spec.get("components", {}).items():
        for side in ("inputDefinitions", "outputDefinitions"):
            for artifact, definition in component.get(side, {}).get("artifacts", {}).items():
                if definition.get("isArtifactList"):
                    yield f"{name}: {artifact} is a list of artifacts"


@rule
def outputs_do_not_share_a_prefix(spec: Spec, platform: Spec) -> Iterator[str]:
    """The launcher fetches everything below an artifact's key as a prefix: `model` would also fetch `model_card`."""
    for name, component in spec.get("components", {}).items():
        outputs = sorted(component.get("outputDefinitions", {}).get("artifacts", {}))
        for first, second in itertools.pairwise(outputs):
            if second.startswith(first):
                yield f"{name}: output {first!r} is a prefix of output {second!r}"


@rule
def parameters_fit(spec: Spec, platform: Spec) -> Iterator[str]:
    """All run parameters together have a limit; half of it is left for what a user fills in."""
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    size = len(json.dumps({name: definition.get("defaultValue", "") for name, definition in declared.items()}))
    if size > MAX_PARAMETER_BYTES // 2:
        yield f"defaults of all parameters take {size} bytes; at most {MAX_PARAMETER_BYTES // 2}"


@rule
def parameters_are_described(spec: Spec, platform: Spec) -> Iterator[str]:
    """The description is all the help the form in the UI gives."""
    for name, definition in spec["root"].get("inputDefinitions", {}).get("parameters", {}).items():
        if not definition.get("description", "").strip():
            yield f"{name}: no description"


@rule
def training_can_share_memory_and_retry(spec: Spec, platform: Spec) -> Iterator[str]:
    """64 MB of /dev/shm stop NCCL and loaders; an evicted pod without retries loses its run."""
    kubernetes = _kubernetes(platform)
    for _, task_name, task in _tasks(spec):
        label = spec["components"][task["componentRef"]["name"]].get("executorLabel", "")
        command = spec["deploymentSpec"]["executors"].get(label, {}).get("container", {}).get("command", [])
        if not command or command[-1] not in _TRAINING:
            continue
        mounts = {mount.get("mountPath"): mount for mount in kubernetes[label].get("emptyDirMounts", [])}
        if mounts.get("/dev/shm", {}).get("medium") != "Memory":
            yield f"{task_name}: no memory-backed volume at /dev/shm"
        if not task.get("retryPolicy", {}).get("maxRetryCount"):
            yield f"{task_name}: no retries"
        if "accelerator" not in spec["deploymentSpec"]["executors"][label]["container"].get("resources", {}):
            yield f"{task_name}: asks for no accelerator"


@rule
def every_task_has_a_deadline(spec: Spec, platform: Spec) -> Iterator[str]:
    """A pod that hangs holds its accelerators for ever."""
    kubernetes = _kubernetes(platform)
    for label, _ in _containers(spec):
        if int(kubernetes[label].get("activeDeadlineSeconds", 0)) <= 0:
            yield f"{label}: no timeout"


@rule
def secrets_come_by_reference(spec: Spec, platform: Spec) -> Iterator[str]:
    """A key in an environment value stands readable in the package, in the UI and in the pod spec."""
    suspicious = re.compile(r"(SECRET|TOKEN|PASSWORD|API_KEY|ACCESS_KEY)")
    for name, container in _containers(spec):
        for variable in container.get("env", []):
            if suspicious.search(variable["name"]):
                yield f"{name}: {variable['name']} is given as a value"


@rule
def no_placeholder_makes_runs_differ(spec: Spec, platform: Spec) -> Iterator[str]:
    """A run's id or time among a task's parameters is a new cache key each run."""
    for _, task_name, task in _tasks(spec):
        for parameter, source in task.get("inputs", {}).get("parameters", {}).items():
            constant = source.get("runtimeValue", {}).get("constant", "")
            if isinstance(constant, str) and re.search(r"\{\{\$\.pipeline_(job|task)_", constant):
                yield f"{task_name}: {parameter} is {constant}"


def unpinned(package: Path) -> list[str]:
    """Image references of a package that name a tag, which can move, and not content."""
    spec = read_spec(package)
    return sorted({container["image"] for _, container in _containers(spec) if "@sha256:" not in container["image"]})


def _containers(spec: Spec) -> Iterator[tuple[str, Spec]]:
    for name, executor in spec.get("deploymentSpec", {}).get("executors", {}).items():
        if "container" in executor:
            yield name, executor["container"]


def _tasks(spec: Spec) -> Iterator[tuple[str, str, Spec]]:
    for name, component in (("root", spec["root"]), *spec.get("components", {}).items()):
        for task_name, task in component.get("dag", {}).get("tasks", {}).items():
            yield name, task_name, task


def _executor_of(spec: Spec, task: Spec) -> Spec:
    label = spec["components"][task["componentRef"]["name"]].get("executorLabel", "")
    return dict(spec["deploymentSpec"]["executors"].get(label, {}))


def _kubernetes(platform: Spec) -> Mapping[str, Spec]:
    executors = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    return defaultdict(dict, executors)


def _seconds(duration: str) -> float:
    """Of a protobuf duration as JSON has it: `60s`."""
    return float(duration.removesuffix("s"))
