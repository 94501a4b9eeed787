"""What a run on Kubeflow read and wrote, from the API alone: no store need be reached, nor its keys be known.

The API keeps the Argo workflow of every run (`GET /apis/v1beta1/runs/<id>`, `pipeline_runtime.workflow_manifest`;
served beside v2beta1 in 2.14 to 2.17). Each stage's pod got its launcher's command as the input `pod-spec-patch`, and
in it the executor input with the URI of every artifact (backend/src/v2/driver/driver.go, initPodSpecPatch).
"""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llava.pipelines.graph import FLOW, STAGES
from llava.stages.stage import uri_parameter

_PATCH = "pod-spec-patch"
_PROGRAM = "llava.executor"


@dataclass(frozen=True)
class Execution:
    """One stage of a run that came to have a pod.

    Attributes:
        stage: its name.
        succeeded: one of its pods ended well, so its outputs are whole.
        inputs: slot -> URI of what it read, as an artifact or by URI.
        outputs: output -> URI.
        pods: names of its attempts' pods, as Argo calls the nodes.
        resources: resource -> amount times seconds, of all attempts, as Argo counts them (`resourcesDuration`).
    """

    stage: str
    succeeded: bool
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    pods: tuple[str, ...] = field(default=())
    resources: Mapping[str, float] = field(default_factory=dict)


def executions(manifest: str) -> list[Execution]:
    """The stages' executions in a workflow as the API keeps it; empty where it holds none of ours.

    Args:
        manifest: the workflow, JSON; its nodes as they are or compressed, as Argo does above a megabyte.
    """
    found: dict[tuple[str, str], Execution] = {}
    for node_id, node in _nodes(manifest).items():
        patch = _parameter(node, _PATCH)
        if node.get("type") != "Pod" or not patch:
            continue
        read = _stage_and_input(patch)
        if read is None:
            continue
        stage, executor_input = read
        inputs, outputs = _uris(executor_input.get("inputs", {})), _uris(executor_input.get("outputs", {}))
        values = executor_input.get("inputs", {}).get("parameterValues", {})
        given = {slot: str(values.get(uri_parameter(slot)) or "") for slot in FLOW[stage]}
        inputs.update({slot: uri for slot, uri in given.items() if uri})
        # Attempts of one execution write to the same places.
        key = (stage, next(iter(outputs.values()), ""))
        before = found.get(key)
        succeeded = node.get("phase") == "Succeeded" or (before is not None and before.succeeded)
        pods = (*(before.pods if before else ()), str(node.get("displayName") or node_id))
        used = dict(before.resources) if before else {}
        for name, amount in (node.get("resourcesDuration") or {}).items():
            used[name] = used.get(name, 0.0) + float(amount)
        found[key] = Execution(stage, succeeded, inputs, outputs, pods, used)
    return list(found.values())


def _nodes(manifest: str) -> Mapping[str, Any]:
    try:
        status = json.loads(manifest).get("status") or {}
        packed = status.get("compressedNodes")
        nodes = json.loads(gzip.decompress(base64.b64decode(packed))) if packed else status.get("nodes")
    except (ValueError, AttributeError, OSError, EOFError, zlib.error):
        return {}
    return nodes if isinstance(nodes, dict) else {}


def _parameter(node: Mapping[str, Any], name: str) -> str:
    for parameter in (node.get("inputs") or {}).get("parameters") or []:
        if parameter.get("name") == name:
            return str(parameter.get("value") or "")
    return ""


def _stage_and_input(patch: str) -> tuple[str, dict[str, Any]] | None:
    """The stage a pod runs, and its executor input, from its launcher's command line."""
    try:
        containers = json.loads(patch).get("containers") or []
    except (ValueError, AttributeError):
        return None
    for container in containers:
        words = [str(word) for word in (*(container.get("command") or []), *(container.get("args") or []))]
        after = dict(_followed(words))
        stage = after.get(_PROGRAM, "")
        if stage in STAGES and "--executor_input" in after:
            return stage, json.loads(after["--executor_input"])
    return None


def _followed(words: list[str]) -> Iterator[tuple[str, str]]:
    """Each word with the one behind it, last first, so that in a mapping the first of a name counts."""
    yield from reversed(list(itertools.pairwise(words)))


def _uris(side: Mapping[str, Any]) -> dict[str, str]:
    artifacts = side.get("artifacts") or {}
    return {
        name: str(value["artifacts"][0]["uri"]) for name, value in artifacts.items() if (value or {}).get("artifacts")
    }
