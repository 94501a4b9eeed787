"""Strict schemas of the custom resources we ship, for the fields we use: an unknown field is an error.

Written by hand after the published API references (Kueue v1beta2, Prometheus operator v1), because no package carries
those and a cluster would silently prune a misspelt field.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
STRING: Schema = {"type": "string", "minLength": 1}
STRINGS: Schema = {"type": "array", "items": STRING, "minItems": 1}
LABELS: Schema = {"type": "object", "additionalProperties": STRING, "minProperties": 1}
QUANTITY: Schema = {"type": "string", "pattern": r"^\d+(\.\d+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?$"}
DURATION: Schema = {"type": "string", "pattern": r"^(\d+(ms|[smhdwy]))+$"}


def strict(required: dict[str, Schema], **optional: Schema) -> Schema:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


SELECTOR = strict({"matchLabels": LABELS})
TOLERATION = strict({"key": STRING, "operator": {"enum": ["Exists", "Equal"]}}, value=STRING, effect=STRING)
PREEMPTION: Schema = {"enum": ["Never", "LowerPriority", "LowerOrNewerEqualPriority"]}
FLAVOR = strict(
    {
        "name": STRING,
        "resources": {
            "type": "array",
            "items": strict({"name": STRING, "nominalQuota": QUANTITY}, borrowingLimit=QUANTITY, lendingLimit=QUANTITY),
        },
    }
)
RELABELING = strict(
    {"sourceLabels": STRINGS},
    regex=STRING,
    targetLabel=STRING,
    replacement=STRING,
    separator={"type": "string"},
    action={"enum": ["keep", "drop", "replace", "labelmap", "labeldrop", "labelkeep"]},
)
RULE = strict(
    {"alert": STRING, "expr": STRING, "labels": LABELS, "annotations": LABELS},
    **{"for": DURATION},
)

SPECS: dict[tuple[str, str], Schema] = {
    ("kueue.x-k8s.io/v1beta2", "ResourceFlavor"): strict(
        {},
        nodeLabels=LABELS,
        nodeTaints={"type": "array", "items": strict({"key": STRING, "value": STRING, "effect": STRING})},
        tolerations={"type": "array", "items": TOLERATION},
    ),
    ("kueue.x-k8s.io/v1beta2", "ClusterQueue"): strict(
        {
            "namespaceSelector": SELECTOR,
            "resourceGroups": {
                "type": "array",
                "items": strict({"coveredResources": STRINGS, "flavors": {"type": "array", "items": FLAVOR}}),
            },
        },
        queueingStrategy={"enum": ["BestEffortFIFO", "StrictFIFO"]},
        cohortName=STRING,
        preemption=strict({}, withinClusterQueue=PREEMPTION, reclaimWithinCohort=PREEMPTION),
    ),
    ("kueue.x-k8s.io/v1beta2", "LocalQueue"): strict({"clusterQueue": STRING}),
    ("monitoring.coreos.com/v1", "PodMonitor"): strict(
        {
            "selector": SELECTOR,
            "podMetricsEndpoints": {
                "type": "array",
                "minItems": 1,
                "items": strict(
                    {"path": STRING}, interval=DURATION, port=STRING, relabelings={"type": "array", "items": RELABELING}
                ),
            },
        }
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): strict(
        {"groups": {"type": "array", "items": strict({"name": STRING, "rules": {"type": "array", "items": RULE}})}}
    ),
}
# Kinds whose content stands beside metadata, not in a spec.
FLAT: dict[tuple[str, str], Schema] = {
    ("kueue.x-k8s.io/v1beta2", "WorkloadPriorityClass"): strict({"value": {"type": "integer"}}, description=STRING),
}

# KServe, serving.kserve.io/v1beta1, after config/crd/full/serving.kserve.io_inferenceservices.yaml; the manifests were
# also held against that file itself, made strict.
_AMOUNTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}
_RESOURCES = strict({"requests": _AMOUNTS, "limits": _AMOUNTS})
_ENV = {"type": "array", "items": strict({"name": STRING, "value": {"type": "string"}})}
_PROBE = strict(
    {"httpGet": strict({"path": STRING, "port": {"type": "integer"}})},
    periodSeconds={"type": "integer"},
    failureThreshold={"type": "integer"},
)
_CONTAINER = strict(
    {"name": {"const": "kserve-container"}, "image": STRING, "resources": _RESOURCES},
    env=_ENV,
    command=STRINGS,
    args=STRINGS,
    ports={
        "type": "array",
        "items": strict({"containerPort": {"type": "integer"}, "name": STRING, "protocol": {"const": "TCP"}}),
    },
    readinessProbe=_PROBE,
    securityContext={"type": "object"},
)
_MODEL = strict(
    {"modelFormat": strict({"name": STRING}, version=STRING), "storageUri": STRING, "resources": _RESOURCES},
    runtime=STRING,
    args=STRINGS,
)
INFERENCE_SERVICE: Schema = strict(
    {
        "predictor": {
            **strict(
                {"serviceAccountName": STRING, "minReplicas": {"type": "integer"}, "maxReplicas": {"type": "integer"}},
                model=_MODEL,
                containers={"type": "array", "items": _CONTAINER, "minItems": 1},
                tolerations={"type": "array", "items": TOLERATION},
            ),
            "oneOf": [{"required": ["model"]}, {"required": ["containers"]}],
        }
    }
)
