"""How the cluster test reaches the bucket: by its own environment, as the pods do, through a forwarded port."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from llava.pipelines.clustertest import pods, reach
from tests.pipelines.clustertest.harness import clustertest
from tests.pipelines.clustertest.simulated import NAMESPACE, SimulatedKubeflow
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow


def test_without_rights_in_the_bucket(
    cluster: SimulatedKubeflow, bucket: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    code, rows = clustertest("--bucket", "s3://no-such-bucket/t")
    assert code == 2 and not rows and not cluster.runs
    assert "no right, or no way, to write below s3://no-such-bucket/t/clustertest-" in capsys.readouterr().err


def test_bucket_and_keys_come_from_the_cluster(
    cluster: SimulatedKubeflow, bucket: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing but --host: root, endpoint and keys as the pods have them, a store inside the cluster by port-forward."""
    here = f"/api/v1/namespaces/{NAMESPACE}"
    keys = {name: base64.b64encode(bucket.environment[name].encode()).decode()
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}  # fmt: skip
    providers = {"s3": {"default": {"endpoint": "llava-store.kubeflow.svc.cluster.local:9000", "disableSSL": True}}}
    cluster.objects |= {
        f"{here}/configmaps/kfp-launcher": {
            "data": {"defaultPipelineRoot": f"{bucket.uri}/pipelines", "providers": yaml.safe_dump(providers)}
        },
        f"{here}/configmaps/llava-storage": {"data": {"AWS_REGION": "us-east-1"}},
        f"{here}/secrets/llava-storage": {"data": keys},
    }
    for name in bucket.environment:
        if name not in ("AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED"):
            monkeypatch.delenv(name)
    port = bucket.endpoint.rpartition(":")[2]
    kubectl = tmp_path / "bin" / "kubectl"  # stands where the store itself listens on this machine
    kubectl.parent.mkdir()
    kubectl.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/pid; printf '%s ' \"$@\" >> {tmp_path}/asked; echo >> {tmp_path}/asked\n"
        f"echo 'Forwarding from 127.0.0.1:{port} -> 8333'\n"
        f"[ $(wc -l < {tmp_path}/asked) = 1 ] && exec sleep 0.1\n"  # the first one breaks off
        "exec sleep 600\n"
    )
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{kubectl.parent}:{os.environ['PATH']}")
    code, rows = clustertest("--probe", "full")
    assert code == 0 and rows["full"]["verdict"] == "as expected", rows
    first, again, *rest = [line.split() for line in (tmp_path / "asked").read_text().splitlines()]
    assert first == ["-n", "kubeflow", "port-forward", "service/llava-store", ":9000", "--address", "127.0.0.1"]
    assert again == [*first[:4], f"{port}:9000", *first[5:]] and not rest, "at the port that is known by now"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert "AWS_ACCESS_KEY_ID" not in os.environ


@pytest.mark.parametrize("here", [True, False])
def test_a_store_with_a_short_name_is_forwarded_only_where_it_has_no_address(
    here: bool, cluster: SimulatedKubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook inside the cluster, where `store.data` is found without kubectl."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    base = f"/api/v1/namespaces/{NAMESPACE}"
    cluster.objects[f"{base}/configmaps/llava-storage"] = {"data": {"AWS_ENDPOINT_URL": "http://store.data:9000"}}
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), base64.b64encode(b"k").decode())
    cluster.objects[f"{base}/secrets/llava-storage"] = {"data": keys}

    def addresses(host: str, port: None) -> list[str]:
        assert host == "store.data"
        if not here:
            raise OSError("unknown")
        return ["10.0.0.1"]

    monkeypatch.setattr("llava.pipelines.clustertest.reach.socket.getaddrinfo", addresses)
    monkeypatch.setenv("PATH", "")
    asked = pods.Pods(NAMESPACE)
    monkeypatch.setattr(pods.Pods, "get", lambda self, path: cluster.objects.get(path))
    if here:
        with reach.reaching(asked, NAMESPACE) as how:
            assert how == "as the pods do (http://store.data:9000)"
    else:
        refused = pytest.raises(reach.Unreachable, match="no kubectl here; needed: kubectl -n data port-forward")
        with refused, reach.reaching(asked, NAMESPACE):
            pass


def test_no_keys_anywhere(cluster: SimulatedKubeflow, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert clustertest("--bucket", "s3://b/t")[0] == 2
    assert "Secret 'llava-storage' in namespace kubeflow has no keys; set AWS_ACCESS_KEY_ID" in capsys.readouterr().err
