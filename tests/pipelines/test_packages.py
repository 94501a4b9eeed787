"""The compiled packages: what each holds, what it asks of a cluster, and that a broken one is told from a sound one."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

import pipeline
from llava.errors import SettingsError
from llava.pipelines.commands import main, make_app
from llava.pipelines.graph import FLOW, SHARED, STAGES, package_names, parameter_name, plan_package
from llava.pipelines.options import read_parameters
from llava.pipelines.package import read_lock
from llava.pipelines.parameters import declared_of
from llava.pipelines.remote_commands import checked
from llava.pipelines.resources import NEEDS, ClusterOptions, group_of
from llava.stages.stage import load_stage, uri_parameter
from tests.compile_once import compile_once

LABELS = {"team": "vision"}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packages")
    options = ClusterOptions(queue="gpu-queue", priority="low", labels=LABELS)
    return {name: compile_once(pipeline.build, name, folder, options)[0] for name in package_names()}


def documents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    spec, platform = yaml.safe_load_all(path.read_text())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_the_graph_is_the_stages() -> None:
    for stage in STAGES:
        definition = load_stage(stage)
        assert set(FLOW[stage]) == set(definition.inputs.model_fields)
        for producer, output in FLOW[stage].values():
            assert output in load_stage(producer).outputs.model_fields
            assert STAGES.index(producer) < STAGES.index(stage)
    for setting, stages in SHARED.items():
        assert all(setting in load_stage(stage).settings.model_fields for stage in stages)


@pytest.mark.parametrize("name", package_names())
def test_a_package_holds_its_stages_and_imports_the_rest(name: str, packages: dict[str, Path]) -> None:
    spec, _ = documents(packages[name])
    plan = plan_package(name)
    tasks = spec["root"]["dag"]["tasks"]
    assert set(tasks) == set(plan.stages)
    fed = {
        FLOW[stage][slot]: tasks[stage]["inputs"]["parameters"][uri_parameter(slot)]["componentInputParameter"]
        for stage in plan.stages
        for slot in FLOW[stage]
        if uri_parameter(slot) in tasks[stage]["inputs"]["parameters"]
    }
    assert fed == plan.imports, "what no stage here makes comes in by URI"
    for stage in plan.stages:
        artifacts = tasks[stage]["inputs"].get("artifacts", {})
        assert set(artifacts) == {slot for slot, source in FLOW[stage].items() if source not in plan.imports}
    declared = spec["root"].get("inputDefinitions", {})["parameters"]
    required = {name for name in plan.imports.values() if not declared[name].get("isOptional")}
    assert required == {plan.imports[source] for source in plan.imports.keys() - plan.optional}
    for stage in plan.stages:
        for setting in load_stage(stage).settings.model_fields:
            given = tasks[stage]["inputs"]["parameters"][setting]["componentInputParameter"]
            assert given == parameter_name(stage, setting)
    assert spec["pipelineInfo"]["name"] == f"llava-{name}"


def test_a_model_alone_can_be_evaluated() -> None:
    plan = plan_package("only-evaluate")
    assert plan.optional == {("pretrain", "projector")}
    assert plan_package("from-finetune").optional == frozenset(), "finetune starts from the projector"


@pytest.mark.parametrize("name", package_names())
def test_a_package_parses_as_what_the_backend_reads(name: str, packages: dict[str, Path]) -> None:
    spec, executors = documents(packages[name])
    parsed = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    assert set(parsed.root.dag.tasks) == set(spec["root"]["dag"]["tasks"])
    for config in executors.values():
        json_format.ParseDict(config, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_asks_of_the_cluster(stage: str, packages: dict[str, Path]) -> None:
    spec, executors = documents(packages["full"])
    container = spec["deploymentSpec"]["executors"][f"exec-{stage}"]["container"]
    kubernetes, needs = executors[f"exec-{stage}"], NEEDS[stage]
    mounts = {mount["mountPath"]: mount for mount in kubernetes["emptyDirMounts"]}
    assert mounts["/scratch"]["sizeLimit"] == needs.scratch
    assert spec["root"]["dag"]["tasks"][stage]["retryPolicy"]["maxRetryCount"] == needs.retries
    assert int(kubernetes["activeDeadlineSeconds"]) == needs.deadline_h * 3600
    labels = kubernetes["podMetadata"]["labels"]
    assert labels.items() >= {"team": "vision", "kueue.x-k8s.io/queue-name": "gpu-queue"}.items()
    assert labels["app.kubernetes.io/component"] == stage
    for resource in ("cpu", "memory"):
        asked = spec["root"]["inputDefinitions"]["parameters"][f"{group_of(stage)}_{resource}"]
        assert asked["defaultValue"] == getattr(needs, resource)
        for bound in ("Request", "Limit"):
            channel = container["resources"][f"resource{resource.capitalize()}{bound}"]
            assert channel.endswith(f"--{group_of(stage)}_{resource}']}}}}")
    if needs.accelerated:
        assert container["resources"]["accelerator"]["resourceType"].endswith("accelerator_type']}}")
        assert mounts["/dev/shm"]["medium"] == "Memory"
        assert "nodeAffinity" not in kubernetes
    else:
        assert "accelerator" not in container["resources"]
        assert kubernetes["nodeAffinity"][0]["nodeAffinityJson"]["componentInputParameter"] == "cpu_node_affinity"
        assert "tolerations" not in kubernetes
    secrets = {s["secretNameParameter"]["componentInputParameter"]: s for s in kubernetes["secretAsEnv"]}
    assert all(secret["optional"] for secret in secrets.values())
    assert ("teacher_secret" in secrets) == (stage == "expand")


@pytest.mark.slow
def test_a_claim_keeps_base_models_for_the_stages_that_read_them(tmp_path: Path) -> None:
    path, _ = compile_once(pipeline.build, "full", tmp_path, ClusterOptions(hub_cache="llava-hub-cache"))
    spec, executors = documents(path)
    for stage in STAGES:
        mounts = [mount["mountPath"] for mount in executors[f"exec-{stage}"].get("pvcMount", [])]
        assert mounts == (["/hub-cache"] if NEEDS[stage].accelerated else [])
        environment = spec["deploymentSpec"]["executors"][f"exec-{stage}"]["container"]["env"]
        hub = "/hub-cache" if NEEDS[stage].accelerated else "/scratch/hub"
        assert {"name": "HF_HOME", "value": hub} in environment


def test_overrides_of_one_stage_are_no_input_of_another(packages: dict[str, Path]) -> None:
    spec, _ = documents(packages["full"])
    tasks = spec["root"]["dag"]["tasks"]
    for stage in ("pretrain", "finetune"):
        users = [
            name
            for name, task in tasks.items()
            for source in task["inputs"]["parameters"].values()
            if source.get("componentInputParameter") == f"{stage}_overrides"
        ]
        assert users == [stage]


def test_outputs_of_the_whole(packages: dict[str, Path]) -> None:
    spec, _ = documents(packages["full"])
    outputs = spec["root"]["outputDefinitions"]["artifacts"]
    assert {"pretrain_data", "instruct_data", "projector", "model", "predictions", "onnx"} <= outputs.keys()
    assert {f"{stage}_{kind}" for stage in STAGES for kind in ("report", "metrics")} <= outputs.keys()


@pytest.mark.slow
def test_images_come_from_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock.json"
    pinned = {stage: f"registry.example/llava-{stage}@sha256:{'a' * 64}" for stage in STAGES}
    lock.write_text(json.dumps({"stages": pinned}))
    path, loose = compile_once(pipeline.build, "full", tmp_path, ClusterOptions(), lock)
    executors = documents(path)[0]["deploymentSpec"]["executors"]
    for stage in STAGES:
        container = executors[f"exec-{stage}"]["container"]
        assert container["image"] == pinned[stage]
        assert {"name": "LLAVA_IMAGE", "value": pinned[stage]} in container["env"]
    assert loose == []


@pytest.mark.parametrize("text", ["", "{}", '{"stages": {"expand": "x"}}', '{"stages": []}'])
def test_a_lock_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    lock = tmp_path / "lock.json"
    lock.write_text(text)
    with pytest.raises(SettingsError, match=str(lock)):
        read_lock(lock)


def test_no_such_package() -> None:
    with pytest.raises(SettingsError, match="found 'from-export'; expected one of full, from-pretrain"):
        pipeline.build("from-export")


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


def call(*arguments: str, cwd: Path) -> Ended:
    """`python pipeline.py ARGUMENTS`, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(pipeline.build, list(arguments))
        except SystemExit as end:
            code = int(end.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


@pytest.mark.slow
def test_compile_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, pipeline.__file__, "compile", "--from", "evaluate", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["llava-from-evaluate.yaml"]
    assert "not pinned by digest" in done.stderr
    # What the other tests of a session are given in place of compiling again is the same.
    again, _ = compile_once(pipeline.build, "from-evaluate", tmp_path / "again", ClusterOptions())
    assert documents(again) == documents(tmp_path / "llava-from-evaluate.yaml")


def test_the_parameter_file_can_be_filled_in_and_given(tmp_path: Path) -> None:
    done = call("parameters", "--package", "only-pretrain", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = tmp_path / "run.yaml"
    written.write_text(done.stdout)
    package, _ = compile_once(pipeline.build, "only-pretrain", tmp_path, ClusterOptions())
    declared = documents(package)[0]["root"]["inputDefinitions"]["parameters"]
    assert set(yaml.safe_load(done.stdout)) == set(declared)
    for known in declared.values():
        assert known["description"].split()[0] in done.stdout
    given = read_parameters(str(written), None)
    assert given == {name: known["defaultValue"] for name, known in declared.items() if "defaultValue" in known}
    assert (
        '"text"' not in done.stdout and 'processes: "auto"' in done.stdout and "threads_per_process: 0\n" in done.stdout
    )
    with pytest.raises(SettingsError, match="pretrain_data_uri: missing") as caught:
        checked(package, given)
    assert str(caught.value).count("missing") == 1
    written.write_text(done.stdout.replace("pretrain_data_uri:", "pretrain_data_uri: s3://b/rows.json"))
    assert checked(package, read_parameters(str(written), ["recipe=llava-v1.5-7b"]))["recipe"] == "llava-v1.5-7b"


def test_operations_say_what_to_put_into_every_field(packages: dict[str, Path]) -> None:
    text = (Path(pipeline.__file__).parent / "docs/operations.md").read_text()
    told = set(re.findall(r"`(\w+)`", text))
    fields = documents(packages["full"])[0]["root"]["inputDefinitions"]["parameters"].keys()
    assert fields - told == set()
    stages = {"expand", "evaluate", "export", "pretrain", "finetune"}
    named = {word for word in told if word.split("_")[0] in stages and "_" in word}
    everywhere = {one.name for name in package_names() for one in declared_of(plan_package(name))}
    assert named - everywhere == set(), "a field that is gone"


@pytest.mark.parametrize("command", ["compile", "run", "parameters", "submit", "upload", "rerun"])
def test_help_says_what_every_option_is_and_its_default(command: str) -> None:
    group: Any = typer.main.get_command(make_app(pipeline.build))
    found = group.commands[command]
    assert found.help
    for option in found.params:
        assert option.help, option.name
        # Rich takes a bracket in a help text for markup, and it is gone.
        assert "[" not in option.help, option.name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compile", "--only", "train"], "--only: found 'train'; expected one of expand, pretrain, finetune,"),
        (["compile", "--from", "expand"], "--from: found 'expand'; expected one of pretrain, finetune, evaluate; from"),
        (["rerun", "--run", "r", "--from", "export"], "--from: found 'export'; expected one of pretrain, finetune, ev"),
        (["rerun", "--run", "r"], "give one of --from and --only"),
        (["upload", "--package", "none"], "package: found 'none'; expected one of full, from-pretrain"),
        (["compile", "--only", "expand", "--from", "pretrain"], "exclude each other"),
        (["compile", "--only", "expand", "--require-pinned"], "not pinned by digest: llava-light:dev"),
        (["compile", "--only", "expand", "--images", "none.json"], "none.json: not a lock file"),
        (["compile", "--only", "expand", "--label", "team"], "--label: found 'team'; expected NAME=VALUE"),
        (["run", "--package", "only-export", "--runner", "podman"], "--runner: found 'podman'"),
        (["run", "--package", "only-export", "--param", "mode_uri=x"], "mode_uri: no such parameter"),
        (["run", "--package", "only-export"], "model_uri: missing"),
    ],
)
def test_wrong_calls_are_refused_with_a_message(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_compiling_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "deepspeed", "boto3", "onnx"}
    code = (
        "import sys, pathlib, tempfile, pipeline\n"
        "from llava.pipelines.package import *\n"
        "compile_package(pipeline.build, 'full', pathlib.Path(tempfile.mkdtemp()), ClusterOptions())\n"
        f"print(*({heavy} & sys.modules.keys()))"
    )
    folder = Path(pipeline.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout.strip() == ""
