"""Every rule of the lint: quiet on the packages we ship, and loud on a package with just that trap in it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline
from llava.pipelines.checks.lint import RULES, lint, unpinned
from llava.pipelines.resources import ClusterOptions
from tests.compile_once import compile_once

Document = dict[str, Any]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """The compiled `from-finetune`: containers, inputs by URI, accelerators, every kind of thing the rules look at."""
    path, _ = compile_once(pipeline.build, "from-finetune", tmp_path_factory.mktemp("sound"), ClusterOptions())
    return list(yaml.safe_load_all(path.read_text()))


def container(spec: Document, stage: str) -> Document:
    found: Document = spec["deploymentSpec"]["executors"][f"exec-{stage}"]["container"]
    return found


def kubernetes(platform: Document, stage: str) -> Document:
    found: Document = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{stage}"]
    return found


def set_args(spec: Document, platform: Document) -> None:
    container(spec, "export")["args"] = ["--model", "{{$.inputs.artifacts['model'].uri}}"]


def set_command(spec: Document, platform: Document) -> None:
    container(spec, "export")["command"].append("{{$.pipeline_job_name}}")


def same_container(spec: Document, platform: Document) -> None:
    executors = spec["deploymentSpec"]["executors"]
    executors["exec-twin"] = copy.deepcopy(executors["exec-export"])


def integer_accelerators(spec: Document, platform: Document) -> None:
    spec["root"]["inputDefinitions"]["parameters"]["train_accelerators"]["parameterType"] = "NUMBER_INTEGER"


def with_importer(spec: Document) -> Document:
    """An importer as kfp 2.17 compiles one; our packages have none."""
    inputs = {"parameters": {"uri": {"parameterType": "STRING"}}}
    spec["components"]["comp-importer"] = {"executorLabel": "exec-importer", "inputDefinitions": inputs}
    kind = {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"}
    importer = {"artifactUri": {"runtimeParameter": "uri"}, "typeSchema": kind}
    spec["deploymentSpec"]["executors"]["exec-importer"] = {"importer": importer}
    task: Document = {
        "componentRef": {"name": "comp-importer"},
        "inputs": {"parameters": {"uri": {"componentInputParameter": "projector_uri"}}},
        "taskInfo": {"name": "importer"},
    }
    spec["root"]["dag"]["tasks"]["importer"] = task
    return task


def computed_importer(spec: Document, platform: Document) -> None:
    task = with_importer(spec)
    task["inputs"]["parameters"]["uri"] = {"taskOutputParameter": {"producerTask": "x", "outputParameterKey": "y"}}


def reimport(spec: Document, platform: Document) -> None:
    with_importer(spec)
    spec["deploymentSpec"]["executors"]["exec-importer"]["importer"]["reimport"] = True


def renamed_importer(spec: Document, platform: Document) -> None:
    with_importer(spec)["taskInfo"]["name"] = "expand: instruct_data"


def short_window(spec: Document, platform: Document) -> None:
    spec["root"]["dag"]["tasks"]["finetune"]["retryPolicy"]["backoffMaxDuration"] = "1800s"


def one_of(spec: Document, platform: Document) -> None:
    selectors = spec["root"]["dag"]["outputs"]["artifacts"]["model"]["artifactSelectors"]
    selectors.append({"producerSubtask": "evaluate", "outputArtifactKey": "predictions"})


def artifact_list(spec: Document, platform: Document) -> None:
    spec["components"]["comp-export"]["inputDefinitions"]["artifacts"]["model"]["isArtifactList"] = True


def prefix(spec: Document, platform: Document) -> None:
    outputs = spec["components"]["comp-finetune"]["outputDefinitions"]["artifacts"]
    outputs["model_card"] = outputs["model"]


def long_defaults(spec: Document, platform: Document) -> None:
    spec["root"]["inputDefinitions"]["parameters"]["recipe"]["defaultValue"] = "x" * 6000


def undescribed(spec: Document, platform: Document) -> None:
    spec["root"]["inputDefinitions"]["parameters"]["recipe"]["description"] = " "


def no_shm(spec: Document, platform: Document) -> None:
    kubernetes(platform, "finetune")["emptyDirMounts"] = [{"volumeName": "shm", "mountPath": "/dev/shm"}]


def no_retry(spec: Document, platform: Document) -> None:
    del spec["root"]["dag"]["tasks"]["finetune"]["retryPolicy"]


def no_accelerator(spec: Document, platform: Document) -> None:
    del container(spec, "finetune")["resources"]["accelerator"]


def no_deadline(spec: Document, platform: Document) -> None:
    del kubernetes(platform, "evaluate")["activeDeadlineSeconds"]


def key_in_environment(spec: Document, platform: Document) -> None:
    container(spec, "evaluate")["env"].append({"name": "HF_TOKEN", "value": "x"})


def run_id_parameter(spec: Document, platform: Document) -> None:
    inputs = spec["root"]["dag"]["tasks"]["export"]["inputs"]["parameters"]
    inputs["precisions"] = {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}


TRAPS: list[tuple[str, Callable[[Document, Document], None]]] = [
    ("args_are_exactly_the_executor_input", set_args),
    ("args_are_exactly_the_executor_input", set_command),
    ("container_specs_are_distinct", same_container),
    ("resources_are_strings", integer_accelerators),
    ("importers_read_root_parameters", computed_importer),
    ("importers_read_root_parameters", reimport),
    ("importers_keep_their_key", renamed_importer),
    ("retry_windows_hold_every_attempt", short_window),
    ("no_artifact_one_of", one_of),
    ("no_artifact_lists", artifact_list),
    ("outputs_do_not_share_a_prefix", prefix),
    ("parameters_fit", long_defaults),
    ("parameters_are_described", undescribed),
    ("training_can_share_memory_and_retry", no_shm),
    ("training_can_share_memory_and_retry", no_retry),
    ("training_can_share_memory_and_retry", no_accelerator),
    ("every_task_has_a_deadline", no_deadline),
    ("secrets_come_by_reference", key_in_environment),
    ("no_placeholder_makes_runs_differ", run_id_parameter),
]


def test_every_rule_has_a_trap() -> None:
    assert {rule for rule, _ in TRAPS} == RULES.keys()


@pytest.mark.parametrize(("rule", "trap"), TRAPS, ids=[trap.__name__ for _, trap in TRAPS])
def test_a_trap_is_found_by_its_rule(
    rule: str, trap: Callable[[Document, Document], None], sound: list[Document], tmp_path: Path
) -> None:
    spec, platform = copy.deepcopy(sound)
    path = tmp_path / "package.yaml"
    path.write_text(yaml.safe_dump_all([spec, platform]))
    assert lint(path) == []
    trap(spec, platform)
    path.write_text(yaml.safe_dump_all([spec, platform]))
    faults = lint(path)
    assert any(fault.startswith(f"{rule}: ") for fault in faults), faults


def test_an_importer_under_its_own_key_is_sound(sound: list[Document], tmp_path: Path) -> None:
    spec, platform = copy.deepcopy(sound)
    with_importer(spec)
    path = tmp_path / "package.yaml"
    path.write_text(yaml.safe_dump_all([spec, platform]))
    assert lint(path) == []


def test_unpinned_images_are_named(sound: list[Document], tmp_path: Path) -> None:
    spec, platform = copy.deepcopy(sound)
    path = tmp_path / "package.yaml"
    path.write_text(yaml.safe_dump_all([spec, platform]))
    assert unpinned(path) == ["llava-evaluate:dev", "llava-export:dev", "llava-train:dev"]
