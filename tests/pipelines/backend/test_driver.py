"""Every package through the driver's rules: what each stage is given is what it can read, and what was asked for."""

from __future__ import annotations

import copy
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from llava import executor
from llava.multinode.trainjob import NodeSettings, TrainJobRequest, train_job
from llava.pipelines.checks.nodes import _quantity
from llava.pipelines.graph import FLOW, package_names, plan_package
from llava.pipelines.resources import AVOID_GPU_NODES, NEEDS, TOLERATE_GPU_TAINT
from llava.stages.stage import load_stage
from tests.manifests.conftest import MANIFESTS, render
from tests.pipelines.backend.driver import DriverError, Task, restricted_faults, run_package, session_of, stage_security
from tests.pipelines.golden import FOLDER

ROOT = "s3://artifacts/kubeflow"
REQUIRED = {"expand_annotations_uri": "s3://data/annotations", "evaluate_questions_uri": "s3://data/questions.jsonl"}


def documents(package: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / f"{package}.yaml").read_text()))


def arguments(package: str, **more: Any) -> dict[str, Any]:
    """What a user must give: the required parameters, inputs from another bucket."""
    declared = documents(package)[0]["root"]["inputDefinitions"]["parameters"]
    plan = plan_package(package)
    inputs = {
        name: f"s3://models/of-others/{source[1]}"
        for source, name in plan.imports.items()
        if source not in plan.optional
    }
    return {**{name: value for name, value in REQUIRED.items() if name in declared}, **inputs, **more}


def driven(package: str, **more: Any) -> dict[str, Task]:
    return run_package(documents(package), arguments(package, **more), ROOT)


@pytest.mark.parametrize("package", package_names())
def test_every_stage_can_read_what_it_is_given(package: str) -> None:
    tasks = driven(package)
    assert tuple(tasks) == plan_package(package).stages
    for name, task in tasks.items():
        stage = load_stage(name)
        assert task.command[:4] == ["python", "-m", "llava.executor", name] and task.command[4] == "--executor-input"
        received = json.loads(task.command[5])
        values, artifacts = received["inputs"]["parameterValues"], received["inputs"]["artifacts"]
        settings = executor.read_settings(stage, values)
        for setting in stage.settings.model_fields:
            assert setting not in REQUIRED or getattr(settings, setting) == REQUIRED[setting]
        _, uris = executor.read_inputs(stage, artifacts, values)
        needed = {slot for slot, info in stage.inputs.model_fields.items() if info.is_required()}
        assert needed <= uris.keys()
        for slot, (producer, output) in FLOW[name].items():
            if producer in tasks:
                assert uris[slot] == f"{ROOT}/llava-{package}/run-1/{producer}/5f3a/{output}"
            elif slot in uris:
                assert uris[slot] == f"s3://models/of-others/{output}", "by URI, as the user gave it"
        assert received["outputs"]["artifacts"].keys() == set(stage.outputs.model_fields)


@pytest.mark.parametrize("package", package_names())
def test_the_launcher_opens_nothing_outside_the_roots_bucket(package: str) -> None:
    """So that every object-store session is the root's, with the endpoint and path style of `kfp-launcher`."""
    (config,) = [r for r in render(MANIFESTS / "overlays" / "local") if r["metadata"]["name"] == "kfp-launcher"]
    providers = yaml.safe_load(config["data"]["providers"])
    own = session_of(f"{ROOT}/x", ROOT, providers, imported=False)
    assert own["endpoint"] and own["forcePathStyle"] is True
    for task in driven(package).values():
        given = [*task.executor_input["inputs"]["artifacts"].values()]
        for artifact in [*given, *task.executor_input["outputs"]["artifacts"].values()]:
            assert session_of(artifact["artifacts"][0]["uri"], ROOT, providers, imported=False) == own
    elsewhere = session_of("s3://models/of-others/model", ROOT, providers, imported=True)
    assert elsewhere == {"provider": "s3", "fromEnv": True}, "what an importer would have given the launcher"


@pytest.mark.parametrize("package", package_names())
def test_resources_and_places_are_filled_in(package: str) -> None:
    for name, task in driven(package).items():
        needs = NEEDS[name]
        for amounts in task.resources.values():
            assert amounts["cpu"] == needs.cpu and amounts["memory"] == needs.memory
            assert all(_quantity(amount) > Decimal(0) for amount in amounts.values())
        assert ("nvidia.com/gpu" in task.resources["limits"]) is needs.accelerated
        if needs.accelerated:
            assert task.pod["tolerations"] == TOLERATE_GPU_TAINT and task.pod["nodeSelector"] == {}
        else:
            assert task.pod["affinity"] == [AVOID_GPU_NODES]
        assert task.pod["labels"]["app.kubernetes.io/component"] == name
        assert task.environment["AWS_SECRET_ACCESS_KEY"] == ("secret", "llava-storage", "AWS_SECRET_ACCESS_KEY")
        assert task.environment["AWS_ENDPOINT_URL"] == ("configMap", "llava-storage", "AWS_ENDPOINT_URL")


NEEDED_ON_2_14 = {
    ("secret", "llava-storage", "AWS_ACCESS_KEY_ID"),
    ("secret", "llava-storage", "AWS_SECRET_ACCESS_KEY"),
    ("secret", "llava-teacher", "OPENAI_API_KEY"),
    ("secret", "llava-hub", "HF_TOKEN"),
    ("configMap", "llava-storage", "AWS_ENDPOINT_URL"),
    ("configMap", "llava-storage", "AWS_REGION"),
    ("configMap", "llava-storage", "LLAVA_PUSHGATEWAY"),
    ("configMap", "llava-storage", "LLAVA_ACCELERATOR_PRICE"),
}


@pytest.mark.parametrize(
    ("version", "needed"), [("2.14", NEEDED_ON_2_14), ("2.15", set()), ("2.16", set()), ("2.17", set())]
)
def test_what_must_be_there_for_a_pod_to_start(version: str, needed: set[tuple[str, str, str]]) -> None:
    tasks = run_package(documents("full"), arguments("full"), ROOT, version=version)
    assert {one for task in tasks.values() for one in task.needed} == needed


def test_the_pages_say_what_2_14_needs() -> None:
    text = (Path(__file__).parents[3] / "docs/operations.md").read_text()
    (section,) = re.findall(r"(?ms)^ *\*\*Kubeflow 2\.14\*\*.*?^$", text)
    for kind, name, key in NEEDED_ON_2_14:
        assert key in section and (name in section or kind == "configMap")


def test_what_a_person_chooses_reaches_the_pods() -> None:
    tasks = driven(
        "full",
        train_accelerators="8",
        accelerator_type="amd.com/gpu",
        accelerator_node_selector={"pool": "mi300"},
        accelerator_tolerations=[{"key": "spot", "operator": "Exists"}],
        train_memory="900Gi",
        storage_secret="mine",
        finetune_overrides='{"finetune.epochs": 2}',
    )
    for name in ("pretrain", "finetune"):
        assert tasks[name].resources["limits"] == {"cpu": "8", "memory": "900Gi", "amd.com/gpu": "8"}
        assert tasks[name].pod["nodeSelector"] == {"pool": "mi300"}
        assert tasks[name].pod["tolerations"] == [{"key": "spot", "operator": "Exists"}]
    assert tasks["evaluate"].resources["limits"]["amd.com/gpu"] == "1"
    assert {task.environment["AWS_ACCESS_KEY_ID"][1] for task in tasks.values()} == {"mine"}
    values = tasks["finetune"].executor_input["inputs"]["parameterValues"]
    assert values["overrides"] == '{"finetune.epochs": 2}' and tasks["pretrain"].command != tasks["finetune"].command


def test_a_missing_input_stops_the_run_before_a_pod_exists() -> None:
    given = arguments("only-export")
    del given["model_uri"]
    with pytest.raises(DriverError, match="model_uri has no value"):
        run_package(documents("only-export"), given, ROOT)


@pytest.mark.parametrize(("shown", "starts"), [("importer", True), ("model", False)])
def test_a_renamed_importer_is_not_found(shown: str, starts: bool) -> None:
    """The rule finds what was wrong: no single stage started once its importer had a display name."""
    found = copy.deepcopy(documents("only-export"))
    spec = found[0]
    spec["components"]["comp-importer"] = {"executorLabel": "exec-importer"}
    spec["deploymentSpec"]["executors"]["exec-importer"] = {
        "importer": {"artifactUri": {"runtimeParameter": "uri"}, "typeSchema": {"schemaTitle": "system.Model"}}
    }
    tasks = spec["root"]["dag"]["tasks"]
    tasks["importer"] = {
        "componentRef": {"name": "comp-importer"},
        "inputs": {"parameters": {"uri": {"componentInputParameter": "model_uri"}}},
        "taskInfo": {"name": shown},
    }
    export = tasks["export"]
    export["dependentTasks"] = ["importer"]
    export["inputs"]["artifacts"] = {
        "model": {"taskOutputArtifact": {"producerTask": "importer", "outputArtifactKey": "artifact"}}
    }
    if starts:
        started = run_package(found, arguments("only-export"), ROOT)["export"]
        (model,) = started.executor_input["inputs"]["artifacts"]["model"]["artifacts"]
        assert model["uri"] == "s3://models/of-others/model"
    else:
        with pytest.raises(DriverError, match='cannot find producer task "importer"'):
            run_package(found, arguments("only-export"), ROOT)


NON_ROOT = {"runAsNonRoot": True, "runAsUser": 65532}
INSTALL = {"defaultSecurityContextRunAsNonRoot": "true", "defaultSecurityContextRunAsUser": "65532"}


@pytest.mark.parametrize("version", ["2.16", "2.17"])
def test_restricted_is_met_by_the_install_config_alone(version: str) -> None:
    pod, main = stage_security(version, workflow=NON_ROOT, template_defaults={}, install={})
    assert restricted_faults(pod, main) == ["runAsNonRoot"], "Argo's workflow defaults do not reach a stage"
    pod, main = stage_security(version, workflow={}, template_defaults={}, install=INSTALL)
    assert restricted_faults(pod, main) == [] and main["runAsUser"] == 65532
    pod, _ = stage_security(version, workflow={}, template_defaults={"fsGroup": 2000}, install=INSTALL)
    assert pod["fsGroup"] == 2000, "template defaults do"


@pytest.mark.parametrize("version", ["2.14", "2.15"])
def test_before_2_16_kubeflow_sets_no_context(version: str) -> None:
    pod, main = stage_security(version, workflow=NON_ROOT, template_defaults={}, install=INSTALL)
    assert restricted_faults(pod, main) == ["seccompProfile", "allowPrivilegeEscalation", "capabilities"]


def test_the_pages_say_how_to_meet_it() -> None:
    text = (Path(__file__).parents[3] / "docs/operations.md").read_text()
    assert all(f'"{name}": "{value}"' in text for name, value in INSTALL.items())


def test_the_nodes_of_a_trainjob_meet_restricted() -> None:
    pod, main = stage_security("2.17", workflow={}, template_defaults={"fsGroup": 2000}, install=INSTALL)
    own = {
        "metadata": {"name": "p", "uid": "u"},
        "spec": {"securityContext": pod, "containers": [{"name": "main", "securityContext": main}]},
    }
    job = train_job(TrainJobRequest("finetune", "r", 2, ["python"], "image", NodeSettings(), pod=own))
    (patch,) = job["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    node = replicated["template"]["spec"]["template"]["spec"]
    (container,) = node["containers"]
    assert restricted_faults(node["securityContext"], container["securityContext"]) == []
    assert node["securityContext"]["runAsUser"] == 65532 and node["securityContext"]["fsGroup"] == 2000
