"""Whether the cluster's Kubeflow Trainer takes the TrainJobs we make, by the schema of its CRD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRAINJOBS = "trainjobs.trainer.kubeflow.org"
VERSION = "v1alpha1"
# Both came with Trainer 2.2; before it the API server drops them, and nodes run without secrets, volumes or an end.
NEEDED = ("runtimePatches", "activeDeadlineSeconds")


def why_too_old(definition: Mapping[str, Any]) -> str:
    """What the CustomResourceDefinition of TrainJobs lacks; empty when it has all that we use."""
    versions = {version["name"]: version for version in definition.get("spec", {}).get("versions") or []}
    if VERSION not in versions or not versions[VERSION].get("served", True):
        return f"its Trainer does not serve {VERSION} of TrainJob (it has {', '.join(versions) or 'none'})"
    schema = versions[VERSION].get("schema", {}).get("openAPIV3Schema", {})
    spec = schema.get("properties", {}).get("spec", {}).get("properties", {})
    lacking = [name for name in NEEDED if name not in spec]
    if not lacking:
        return ""
    return f"its Trainer's TrainJob has no spec.{' and no spec.'.join(lacking)}; Trainer 2.2 or later is needed"
