"""Every overlay renders, passes Kubernetes' own schemas strictly, and refers only to what is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from llava.pipelines.resources import METRICS_PORT, parameters
from llava.stages.stage import STAGE_MODULES
from tests.manifests.conftest import MANIFESTS, OVERLAYS, Resource, render
from tests.manifests.crd_schemas import FLAT, SPECS

ROOT = MANIFESTS.parent
CLUSTER_SCOPED = {"Namespace", "PriorityClass", "ClusterQueue", "ResourceFlavor", "WorkloadPriorityClass"}


def find(resources: tuple[Resource, ...], kind: str, name: str) -> Resource:
    return next(r for r in resources if r["kind"] == kind and r["metadata"]["name"] == name)


def test_there_are_the_overlays_we_promise() -> None:
    assert OVERLAYS == ["gpu", "local", "multi-node", "multi-user"]


@pytest.mark.slow
def test_schemas(resources: tuple[Resource, ...]) -> None:
    checked = 0
    for resource in resources:
        key = (resource["apiVersion"], resource["kind"])
        if key in SPECS:
            assert set(resource) <= {"apiVersion", "kind", "metadata", "spec"}
            jsonschema.validate(resource.get("spec", {}), SPECS[key])
        elif key in FLAT:
            jsonschema.validate(
                {k: v for k, v in resource.items() if k not in ("apiVersion", "kind", "metadata")}, FLAT[key]
            )
        else:
            # Raises for a kind it has no schema of, so nothing passes unchecked.
            kubernetes_validate.validate(resource, "1.35", strict=True)
        checked += 1
    assert checked >= 9


def test_a_misspelt_field_would_be_found() -> None:
    queue = find(render(MANIFESTS / "overlays" / "gpu"), "ClusterQueue", "llava")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**queue["spec"], "cohort": "x"}, SPECS["kueue.x-k8s.io/v1beta2", "ClusterQueue"])
    account = find(render(MANIFESTS / "overlays" / "gpu"), "ServiceAccount", "llava-runner")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**account, "secretz": []}, "1.35", strict=True)


def test_everything_is_in_one_namespace_and_labelled(resources: tuple[Resource, ...]) -> None:
    namespaces = {r["metadata"].get("namespace") for r in resources if r["kind"] not in CLUSTER_SCOPED}
    assert len(namespaces) == 1 and None not in namespaces
    names = [(r["kind"], r["metadata"]["name"]) for r in resources]
    assert len(names) == len(set(names))


def test_no_secret_stands_in_a_manifest(overlay: str, resources: tuple[Resource, ...]) -> None:
    secrets = [r for r in resources if r["kind"] == "Secret"]
    # The local store's key opens nothing but the store in the same overlay.
    assert [s["metadata"]["name"] for s in secrets] == (["llava-storage"] if overlay == "local" else [])


def test_multi_user_leaves_alone_what_a_controller_owns(overlay: str, resources: tuple[Resource, ...]) -> None:
    kinds = {(r["kind"], r["metadata"]["name"]) for r in resources}
    assert (("ConfigMap", "kfp-launcher") in kinds) is (overlay != "multi-user")
    assert (("Namespace", "kubeflow") in kinds) is (overlay != "multi-user")


def test_rights_are_the_least_that_do(overlay: str, resources: tuple[Resource, ...]) -> None:
    for role in [r for r in resources if r["kind"] in ("Role", "ClusterRole")]:
        assert role["kind"] == "Role", "nothing outside the namespace"
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            if {"secrets", "configmaps"} & set(rule["resources"]):
                assert rule["verbs"] == ["get"] and rule["resourceNames"]
            assert "pods/exec" not in rule["resources"]
    bound = {r["roleRef"]["name"] for r in resources if r["kind"] == "RoleBinding"}
    assert bound == {r["metadata"]["name"] for r in resources if r["kind"] == "Role"}
    for binding in [r for r in resources if r["kind"] == "RoleBinding"]:
        account = find(resources, "ServiceAccount", binding["subjects"][0]["name"])
        assert binding["subjects"][0]["namespace"] == account["metadata"]["namespace"]
    trainjobs = any("trainjobs" in rule["resources"] for r in resources if r["kind"] == "Role" for rule in r["rules"])
    assert trainjobs is (overlay in ("multi-node", "multi-user"))


def test_launcher_and_stages_use_the_names_the_pipeline_has() -> None:
    defaults = {p.name: p.default for p in parameters(tuple(STAGE_MODULES))}
    for overlay in ("local", "gpu", "multi-node"):
        resources = render(MANIFESTS / "overlays" / overlay)
        launcher = find(resources, "ConfigMap", "kfp-launcher")["data"]
        store = yaml.safe_load(launcher["providers"])["s3"]["default"]
        reference = store["credentials"]["secretRef"]
        assert reference["secretName"] == defaults["storage_secret"]
        assert launcher["defaultPipelineRoot"].startswith("s3://")
        config = find(resources, "ConfigMap", defaults["storage_config"])["data"]
        assert config["AWS_REGION"] == store["region"]
        role = find(resources, "Role", "llava-runner")
        readable = [name for rule in role["rules"] if "secrets" in rule["resources"] for name in rule["resourceNames"]]
        assert reference["secretName"] in readable


def test_the_volume_for_base_models_is_the_one_that_is_checked_and_named() -> None:
    claim = find(render(MANIFESTS / "overlays" / "gpu"), "PersistentVolumeClaim", "llava-hub-cache")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"], "stages of several runs mount it at the same time"
    for path in ("docs/operations.md", "llava/pipelines/options.py", "llava/pipelines/checks/cluster_check.py"):
        assert claim["metadata"]["name"] in (ROOT / path).read_text()


def test_the_local_store_is_where_everything_looks_for_it() -> None:
    resources = render(MANIFESTS / "overlays" / "local")
    endpoint = find(resources, "ConfigMap", "llava-storage")["data"]["AWS_ENDPOINT_URL"]
    launcher = yaml.safe_load(find(resources, "ConfigMap", "kfp-launcher")["data"]["providers"])["s3"]["default"]
    service = find(resources, "Service", "llava-store")
    host = f"llava-store.{service['metadata']['namespace']}.svc.cluster.local:{service['spec']['ports'][0]['port']}"
    assert endpoint == f"http://{host}" and launcher["endpoint"] == host and launcher["disableSSL"] is True
    template = find(resources, "Deployment", "llava-store")["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()


def test_our_own_pods_meet_pod_security_restricted() -> None:
    pods = [
        r["spec"]["template"]["spec"]
        for overlay in OVERLAYS
        for r in render(MANIFESTS / "overlays" / overlay)
        if r["kind"] in ("Deployment", "StatefulSet", "Job")
    ]
    assert pods
    for pod in pods:
        assert (
            pod["securityContext"]["runAsNonRoot"]
            and pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        )
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False and context["capabilities"]["drop"] == ["ALL"]
            assert re.search(r":\d", container["image"]), "a tag that does not move"


@pytest.mark.parametrize("component", ["workload-identity", "restricted", "announce"])
def test_optional_components_apply_on_top(component: str, tmp_path: Path) -> None:
    shutil.copytree(MANIFESTS, tmp_path / "manifests", ignore=shutil.ignore_patterns("node_modules"))
    overlay = tmp_path / "manifests" / "overlays" / "mine"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": ["../gpu"],
                "components": [f"../../components/{component}"],
            }
        )
    )
    resources = render(overlay)
    if component == "restricted":
        labels = find(resources, "Namespace", "kubeflow")["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    elif component == "announce":
        job = find(resources, "CronJob", "llava-announce")
        kubernetes_validate.validate(job, "1.35", strict=True)
        (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert container["command"] == ["llava", "announce"]
    else:
        providers = yaml.safe_load(find(resources, "ConfigMap", "kfp-launcher")["data"]["providers"])
        assert providers["s3"]["default"]["credentials"] == {"fromEnv": True}


def test_monitor_network_and_telemetry_agree_on_the_port() -> None:
    resources = render(MANIFESTS / "overlays" / "gpu")
    monitor = find(resources, "PodMonitor", "llava")["spec"]
    address = next(r for r in monitor["podMetricsEndpoints"][0]["relabelings"] if r.get("targetLabel") == "__address__")
    assert address["replacement"] == f"$1:{METRICS_PORT}"
    policy = find(resources, "NetworkPolicy", "llava-pods")["spec"]
    ports = [port["port"] for rule in policy["ingress"] for port in rule.get("ports", [])]
    assert ports == [int(METRICS_PORT)]
    assert (
        monitor["selector"]["matchLabels"]
        == policy["podSelector"]["matchLabels"]
        == {"app.kubernetes.io/name": "llava"}
    )


def published_series() -> set[str]:
    """Every series name our code can publish, read from its calls of Telemetry."""
    found: set[str] = set()
    call = re.compile(r"\.(gauge|count|observe|timed)\(\s*\"([a-z0-9_]+)\"")
    for path in (ROOT / "llava").rglob("*.py"):
        for method, name in call.findall(path.read_text()):
            if method == "gauge":
                found.add(f"llava_{name}")
            elif method == "count":
                found.add(f"llava_{name}_total")
            else:
                found |= {f"llava_{name}_{part}" for part in ("bucket", "sum", "count")}
    return found


def test_alerts_and_dashboard_ask_only_for_series_that_exist() -> None:
    resources = render(MANIFESTS / "overlays" / "gpu")
    rules = find(resources, "PrometheusRule", "llava")["spec"]["groups"][0]["rules"]
    dashboard = json.loads(find(resources, "ConfigMap", "llava-dashboard")["data"]["llava.json"])
    expressions = [rule["expr"] for rule in rules]
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for expression in expressions for name in re.findall(r"\bllava_\w+", expression)}
    assert len(asked) > 10
    assert asked <= published_series()


def test_dashboard_panels_lie_side_by_side() -> None:
    dashboard = json.loads((MANIFESTS / "components" / "monitoring" / "dashboard.json").read_text())
    cells = [
        (x, y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
    assert all(panel["description"] for panel in dashboard["panels"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: prometheus)")
def test_alerts_fire_when_they_should_and_not_else(tmp_path: Path) -> None:
    rule = find(render(MANIFESTS / "overlays" / "gpu"), "PrometheusRule", "llava")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    series = 'llava_train_last_step_timestamp_seconds{stage="pretrain",run="r"}'
    cases = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": "0+60x10 600x40"}],
                "alert_rule_test": [
                    {"eval_time": "20m", "alertname": "LlavaTrainingStalled", "exp_alerts": []},
                    {
                        "eval_time": "40m",
                        "alertname": "LlavaTrainingStalled",
                        "exp_alerts": [
                            {
                                "exp_labels": {"severity": "critical", "stage": "pretrain", "run": "r"},
                                "exp_annotations": {
                                    "summary": "pretrain of run r has made no step for 15 minutes",
                                    "action": rule["spec"]["groups"][0]["rules"][0]["annotations"]["action"],
                                },
                            }
                        ],
                    },
                ],
            }
        ],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(cases))
    answer = subprocess.run(
        ["promtool", "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: prometheus)")
def test_alerts_of_the_cluster_fire_when_they_should_and_not_else(tmp_path: Path) -> None:
    rule = find(render(MANIFESTS / "overlays" / "gpu"), "PrometheusRule", "llava")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    gpu = 'gpu="3",Hostname="node-1",exported_pod="llava-full-abc"'
    # alert -> a series that fires it, and its like that does not; a minute between two values
    cases = {
        "LlavaPodPending": (
            'kube_pod_status_phase{namespace="kubeflow",phase="Pending",pod="llava-full-abc"}', "1x60", "1x20 0x40"
        ),
        "LlavaWorkloadSuspended": ('kueue_pending_workloads{cluster_queue="llava"}', "2x60", "0x60"),
        # microseconds of throttling: 12 s, then 3 s, in every minute
        "LlavaGpuThrottled": (f"DCGM_FI_DEV_THERMAL_VIOLATION{{{gpu}}}", "0+12000000x60", "0+3000000x60"),
        "LlavaGpuMemoryErrors": (f"DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS{{{gpu}}}", "0x40 1x20", "1x60"),
        "LlavaGpuXid": (f"DCGM_FI_DEV_XID_ERRORS{{{gpu}}}", "0x45 79x15", "0x60"),
    }  # fmt: skip
    idle = {"series": 'kueue_admitted_active_workloads{cluster_queue="llava"}', "values": "0x60"}
    tests = []
    for alert, (series, fires, quiet) in cases.items():
        for values, expected in ((fires, 1), (quiet, 0)):
            count = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
            tests.append(
                {
                    "name": f"{alert} {expected}",
                    "interval": "1m",
                    "input_series": [{"series": series, "values": values}, idle],
                    "promql_expr_test": [
                        {"expr": count, "eval_time": "50m", "exp_samples": [{"labels": "{}", "value": expected}]}
                    ],
                }
            )
    cases_file = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(cases_file))
    answer = subprocess.run(
        ["promtool", "test", "rules", "cases.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
