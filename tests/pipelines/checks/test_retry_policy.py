"""The retry policy in force, from ConfigMaps as they are shipped, and whether Trainer is new enough."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from llava.pipelines.checks.retry_policy import policy_in_force, say_policy
from llava.pipelines.checks.trainer import why_too_old

# manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml of KFP 2.17.0.
SHIPPED_2_17 = """
spec:
  ttlStrategy:
    secondsAfterCompletion: 3600
    secondsAfterSuccess: 3600
    secondsAfterFailure: 3600
  templateDefaults:
    retryStrategy:
      limit: '2'
      retryPolicy: OnError
"""
ALWAYS = "spec: {templateDefaults: {retryStrategy: {retryPolicy: Always}}}"


@pytest.mark.parametrize(
    ("data", "policy", "limit"),
    [
        ({"workflowDefaults": SHIPPED_2_17}, "OnError", 2),
        ({"executor": "imagePullPolicy: IfNotPresent"}, "OnFailure", None),  # 2.14 to 2.16 have no defaults
        ({}, "OnFailure", None),
        ({"workflowDefaults": SHIPPED_2_17.replace("OnError", "Always")}, "Always", 2),
        ({"config": "workflowDefaults: {" + ALWAYS + "}"}, "Always", None),  # older installations
        ({"workflowDefaults": "spec: {templateDefaults: {retryStrategy: {expression: 'true'}}}"}, "Always", None),
    ],
)  # fmt: skip
def test_the_policy_in_force(data: dict[str, str], policy: str, limit: int | None) -> None:
    assert policy_in_force({"data": data}) == (policy, limit)
    assert f"the policy in force is {policy}: " in say_policy({"data": data})


def test_the_patch_of_the_pages_changes_the_policy_alone() -> None:
    """`workflowDefaults` is one text: what 2.17 ships there besides the policy must stand in the patch."""
    page = (Path(__file__).parents[3] / "docs/operations.md").read_text()
    (patch,) = re.findall(r"(?s)patch configmap workflow-controller-configmap .*?<<'YAML'\n(.*?)\nYAML", page)
    data = yaml.safe_load(patch)["data"]
    assert policy_in_force({"data": data}) == ("Always", 0)
    ours, shipped = yaml.safe_load(data["workflowDefaults"])["spec"], yaml.safe_load(SHIPPED_2_17)["spec"]
    for spec in (ours, shipped):
        spec["templateDefaults"].pop("retryStrategy")
    assert ours == shipped


def test_a_default_limit_that_repeats_whole_runs_is_named() -> None:
    assert "repeats a whole failed run" in say_policy(
        {"data": {"workflowDefaults": SHIPPED_2_17.replace("OnError", "Always")}}
    )
    assert "repeats" not in say_policy({"data": {"workflowDefaults": SHIPPED_2_17}})


def definition(*fields: str, version: str = "v1alpha1") -> dict[str, Any]:
    spec = {"properties": {name: {"type": "object"} for name in fields}}
    schema = {"openAPIV3Schema": {"properties": {"spec": spec}}}
    return {"spec": {"versions": [{"name": version, "served": True, "schema": schema}]}}


def test_trainer_is_judged_by_its_schema() -> None:
    new = definition("runtimeRef", "trainer", "runtimePatches", "activeDeadlineSeconds", "suspend")
    assert why_too_old(new) == ""
    old = definition("runtimeRef", "trainer", "podTemplateOverrides", "suspend")  # 2.1
    assert "has no spec.runtimePatches" in why_too_old(old) and "2.2 or later" in why_too_old(old)
    assert "does not serve v1alpha1" in why_too_old(definition("runtimePatches", version="v1"))
