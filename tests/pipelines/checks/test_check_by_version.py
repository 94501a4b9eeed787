"""What is asked of a cluster by the version of its Kubeflow Pipelines and by its policies."""

from __future__ import annotations

import pytest

from tests.multinode.api_server import NAMESPACE, ApiServer
from tests.pipelines.checks.test_cluster_check import IN_NAMESPACE, Submit, cluster, kubeflow, submit
from tests.pipelines.kfp_server import KfpServer

__all__ = ["cluster", "kubeflow", "submit"]


INSTALLED = f"{IN_NAMESPACE}/configmaps/pipeline-install-config"


def test_before_2_15_every_key_must_be_there(cluster: ApiServer, kubeflow: KfpServer, submit: Submit) -> None:
    """Its driver drops `optional`, so that a pod whose key is missing never starts."""
    cluster.objects[INSTALLED] = {"data": {"appVersion": "2.14.0"}}
    said = submit()
    assert not kubeflow.runs
    assert "hub_secret: there is no Secret 'llava-hub'" in said and "--from-literal=HF_TOKEN=..." in said
    assert "an empty value will do" in said
    assert (
        "storage_config: ConfigMap 'llava-storage' has no AWS_ENDPOINT_URL, AWS_REGION, LLAVA_ACCELERATOR_PRICE" in said
    )
    cluster.objects[f"{IN_NAMESPACE}/secrets/llava-hub"] = {"data": {"HF_TOKEN": ""}}
    keys = ("AWS_ENDPOINT_URL", "AWS_REGION", "LLAVA_ACCELERATOR_PRICE", "LLAVA_PUSHGATEWAY")
    cluster.objects[f"{IN_NAMESPACE}/configmaps/llava-storage"] = {"data": dict.fromkeys(keys, "")}
    assert submit() == "" and kubeflow.runs


@pytest.mark.parametrize("version", ["2.15.0", "2.17.0", "of our own", ""])
def test_later_versions_know_what_is_optional(
    version: str, cluster: ApiServer, kubeflow: KfpServer, submit: Submit
) -> None:
    cluster.objects[INSTALLED] = {"data": {"appVersion": version}}
    assert submit() == "" and kubeflow.runs


def test_an_evaluation_by_a_server_that_the_policy_closes_is_refused(
    cluster: ApiServer, kubeflow: KfpServer, submit: Submit
) -> None:
    policy = {"spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 443}]}]}}
    cluster.objects[f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies"] = {"items": [policy]}
    given = {"model_uri": "s3://b/model", "evaluate_questions_uri": "s3://b/q.jsonl", "evaluate_benchmark": "pope"}
    said = submit(
        package="only-evaluate", **given, evaluate_endpoint="http://llava.vllm:8000/v1", evaluate_endpoint_model="m"
    )
    assert "evaluate_endpoint: the NetworkPolicies" in said and "keep evaluate from http://llava.vllm:8000/v1" in said
    assert not kubeflow.runs
