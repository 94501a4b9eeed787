"""Which pods the cluster's Argo starts again: read from its ConfigMap, said in one line.

kfp cannot set a retry policy, so it is the controller's: its `workflowDefaults` give every template what the template
does not say itself, and where they say nothing it is `OnFailure` (argo-workflows v3.6 to v4.0.5, RetryPolicyActual).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

CONTROLLER = "workflow-controller-configmap"
_MEANING = {
    "OnError": "a lost pod is retried; one that failed, was evicted or ran out of memory is not "
    "(what dies inside a pod is restarted there)",
    "OnFailure": "a failed pod is retried (a user's error ends its retries at once); a lost or preempted one is not",
    "Always": "lost and failed pods are retried; a user's error ends its retries at once",
    "OnTransientError": "only what Argo itself calls transient is retried",
}


def policy_in_force(config_map: Mapping[str, Any]) -> tuple[str, int | None]:
    """(policy, limit of templates that set none) by the controller's ConfigMap.

    Args:
        config_map: the object.
    """
    data = config_map.get("data") or {}
    defaults: Any = data.get("workflowDefaults")
    if defaults is None and "config" in data:  # older installations keep everything under one key
        defaults = (yaml.safe_load(data["config"]) or {}).get("workflowDefaults")
    if isinstance(defaults, str):
        defaults = yaml.safe_load(defaults)
    spec = (defaults or {}).get("spec") or {}
    strategy = (spec.get("templateDefaults") or {}).get("retryStrategy") or {}
    policy = strategy.get("retryPolicy") or ("Always" if strategy.get("expression") else "OnFailure")
    limit = strategy.get("limit")
    return str(policy), int(limit) if limit is not None else None


def policy_line(read: Callable[[str], Mapping[str, Any] | None], namespace: str) -> str:
    """One line for a person, whether or not the cluster tells.

    Args:
        read: the object at a path of the Kubernetes API; None where there is none, or it cannot be read.
        namespace: of the runs; the controller is there or, where there are profiles, in `kubeflow`.
    """
    for place in dict.fromkeys((namespace, "kubeflow")):
        if found := read(f"/api/v1/namespaces/{place}/configmaps/{CONTROLLER}"):
            return say_policy(found)
    return f"retries: the ConfigMap {CONTROLLER} cannot be read, so which pods are retried is not known"


def say_policy(config_map: Mapping[str, Any]) -> str:
    """One line for a person."""
    policy, limit = policy_in_force(config_map)
    text = f"retries: the policy in force is {policy}: {_MEANING.get(policy, 'unknown to this version')}"
    if policy in ("Always", "OnFailure") and limit:
        text += f"; its default limit of {limit} repeats a whole failed run as well, 0 would not"
    return text
