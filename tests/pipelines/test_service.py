"""submit, upload, rerun against a server that speaks the v2beta1 API: what is sent, and what errors say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pipeline
from llava import storage
from llava.config import bundled_recipes
from llava.errors import SettingsError, UserError
from llava.executor import RECORD_NAME, OutputRecord
from llava.local.run import LocalOptions
from llava.pipelines.checks.preflight import check_run
from llava.pipelines.commands import main, make_app
from llava.pipelines.earlier import RunNotFound, find_run, pick
from llava.pipelines.graph import FLOW
from llava.pipelines.resources import ClusterOptions
from llava.pipelines.service import Service
from llava.stages.stage import load_stage
from tests.compile_once import compile_once
from tests.pipelines.kfp_server import KfpServer, kfp_server
from tests.s3_server import free_port

DATA = ["--param", "expand_annotations_uri=s3://b/annotations", "--param", "images_uri=s3://b/images"]
DATA += ["--param", "evaluate_questions_uri=s3://b/q.jsonl", "--param", "recipe=tiny"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    monkeypatch.chdir(tmp_path)
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_TOKEN", "KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with kfp_server() as running:
        yield running


def call(*arguments: str) -> None:
    make_app(pipeline.build)(list(arguments), standalone_mode=False)


@pytest.mark.slow
def test_submit_sends_package_parameters_and_root(server: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    call("submit", "--host", server.url, "--root", "s3://b/runs", "--experiment", "e", "--name", "n", "--no-cache",
         "--service-account", "pipeline-runner", "--queue", "gpu", "-p", "train_accelerators=8", *DATA)  # fmt: skip
    (experiment,) = server.of("POST", "/experiments")
    assert experiment["display_name"] == "e"
    (body,) = server.of("POST", "/runs")
    assert body["display_name"] == "n" and body["experiment_id"] == "experiment-1"
    assert body["service_account"] == "pipeline-runner"
    config = body["runtime_config"]
    assert config["pipeline_root"] == "s3://b/runs"
    assert config["parameters"]["train_accelerators"] == "8" and config["parameters"]["recipe"] == "tiny"
    spec = body["pipeline_spec"]["pipeline_spec"]
    assert spec["pipelineInfo"]["name"] == "llava-full"
    assert not any(task["cachingOptions"].get("enableCache") for task in spec["root"]["dag"]["tasks"].values())
    kubernetes = body["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert kubernetes["exec-pretrain"]["podMetadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
    assert "run run-1" in capsys.readouterr().out


@pytest.mark.slow
def test_the_token_is_sent_and_a_refusal_is_said(server: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.token = "correct"
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
    with pytest.raises(UserError, match=r"refused \(401\).*KF_PIPELINES_TOKEN"):
        call("submit", *DATA)
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "correct")
    call("submit", *DATA)
    assert len(server.runs) == 1


def test_upload_makes_a_pipeline_once_and_a_version_each_time(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    call("upload", "--package", "only-export", "--host", server.url, "--version", "1")
    call("upload", "--package", "only-export", "--host", server.url)
    assert [p["display_name"] for p in server.pipelines.values()] == ["llava-only-export"]
    assert [v["pipeline_id"] for v in server.versions] == ["pipeline-1", "pipeline-1"]
    assert server.versions[0]["display_name"] == "1"
    assert "+" in server.versions[1]["display_name"], "our version and the commit"
    assert "llava-only-export" in server.of("POST", "/pipelines/upload_version")[0]["_upload"]
    assert "version  version-2" in capsys.readouterr().out


def leave(root: str, run: str, stages: list[str], *, pipeline_name: str = "llava-full") -> dict[tuple[str, str], str]:
    """What a run on a cluster leaves: artifacts and records below <root>/<pipeline>/<run>/<task>/<salt>/."""
    made: dict[tuple[str, str], str] = {}
    for stage in ("expand", "pretrain", "finetune", "evaluate", "export"):
        definition = load_stage(stage)
        # A stage from the cache has its artifacts below the run that made them.
        owner = run if stage in stages else "older"
        folder = storage.join(root, pipeline_name, owner, stage, "5a17")
        outputs = {name: storage.join(folder, name) for name in definition.outputs.model_fields}
        made.update({(stage, name): uri for name, uri in outputs.items()})
        for uri in outputs.values():
            storage.write_text(uri if "data" in uri else storage.join(uri, "manifest.json"), "{}")
        if stage in stages:
            record = OutputRecord(
                stage=stage,
                settings={},
                inputs={slot: made[source] for slot, source in FLOW[stage].items()},
                outputs=outputs,
                seconds=1,
                finished_unix=1,
            )
            storage.write_json(storage.join(folder, RECORD_NAME), record.model_dump())
    return made


@pytest.mark.slow
@pytest.mark.parametrize("place", ["disk", "moto_s3"])
def test_rerun_finds_the_artifacts_and_keeps_the_parameters(
    place: str, server: KfpServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = str(tmp_path / "store") if place == "disk" else f"{request.getfixturevalue(place).uri}/runs"
    made = leave(root, "run-a", ["finetune", "evaluate", "export"])
    parameters = {"recipe": "tiny", "images_uri": "s3://b/images", "finetune_overrides": '{"finetune.max_steps": 7}',
                  "evaluate_questions_uri": "s3://b/q", "pretrain_overrides": "{}"}  # fmt: skip
    server.runs["run-a"] = {
        "run_id": "run-a",
        "state": "FAILED",
        "pipeline_spec": {"pipelineInfo": {"name": "llava-full"}},
        "runtime_config": {"pipeline_root": root, "parameters": parameters},
    }
    call("rerun", "--run", "run-a", "--from", "finetune", "--host", server.url, "--param", "train_accelerators=4")
    (body,) = server.of("POST", "/runs")
    sent = body["runtime_config"]["parameters"]
    # Both producers came from the cache: their URIs are known from what finetune read.
    assert sent["instruct_data_uri"] == made["expand", "instruct_data"]
    assert sent["projector_uri"] == made["pretrain", "projector"]
    assert sent["finetune_overrides"] == parameters["finetune_overrides"] and sent["train_accelerators"] == "4"
    assert "pretrain_overrides" not in sent, "of a stage that does not run"
    assert body["runtime_config"]["pipeline_root"] == root
    assert body["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "llava-from-finetune"


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["kubeflow", "local"])
def test_rerun_resumes_the_stage_that_was_stopped(layout: str, server: KfpServer, tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    leave(root, "run-a", ["expand", "pretrain"])
    run = f"{root}/llava-full/run-a" if layout == "kubeflow" else f"{root}/run-a"
    place = f"{run}/finetune/{'5a17/' if layout == 'kubeflow' else ''}checkpoints"
    for step in (2, 4):
        storage.write_text(f"{place}/step-{step:08d}/manifest.json", "{}")
    storage.write_text(f"{place}/step-00000006/fragments-00000.json", "{}")  # interrupted
    own = {"finetune_resume_uri": "s3://b/of-the-run-before", "finetune_overrides": '{"finetune.max_steps": 9}'}
    server.runs["run-a"] = {"run_id": "run-a", "runtime_config": {"pipeline_root": root, "parameters": own}}
    rest = ["--host", server.url, "-p", "evaluate_questions_uri=s3://b/q", "-p", "recipe=tiny"]
    call("rerun", "--run", "run-a", "--from", "finetune", *rest)
    call("rerun", "--run", "run-a", "--from", "finetune", "--resume", *rest)
    anew, resumed = (body["runtime_config"]["parameters"] for body in server.of("POST", "/runs"))
    assert anew["finetune_overrides"] == resumed["finetune_overrides"] == own["finetune_overrides"]
    assert "finetune_resume_uri" not in anew and resumed["finetune_resume_uri"] == place
    with pytest.raises(SettingsError, match="left no complete checkpoint of pretrain"):
        call("rerun", "--run", "run-a", "--only", "pretrain", "--resume", "--host", server.url)
    with pytest.raises(SettingsError, match="expand has no checkpoints; expected --from or --only pretrain or finet"):
        call("rerun", "--run", "run-a", "--only", "expand", "--resume", "--host", server.url)


def test_a_run_nobody_knows(server: KfpServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run 'run-x': there is none"):
        call("rerun", "--run", "run-x", "--from", "finetune", "--host", server.url)
    with pytest.raises(RunNotFound, match=r"run 'run-x': nothing of it at .*/run-x"):
        find_run(str(tmp_path), "run-x")
    assert not server.of("POST", "/runs")


def test_an_artifact_that_expired_or_was_never_made(tmp_path: Path) -> None:
    made = leave(str(tmp_path), "run-a", ["expand", "pretrain"])
    storage.delete(made["pretrain", "projector"])
    earlier = find_run(str(tmp_path), "run-a")
    with pytest.raises(RunNotFound) as caught:
        pick(earlier, [("pretrain", "projector"), ("finetune", "model"), ("expand", "instruct_data")])
    said = str(caught.value)
    assert "projector of pretrain" in said and "is gone (deleted or expired); run pretrain again" in said
    assert "model of finetune: the run has none" in said and "instruct_data" not in said


def test_no_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    with pytest.raises(SettingsError, match="give --host or set KF_PIPELINES_ENDPOINT"):
        call("submit", *DATA)


def test_nobody_at_the_endpoint(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    address = f"http://127.0.0.1:{free_port()}"
    assert main(pipeline.build, ["submit", "--host", address, *DATA]) == 2
    assert f"{address}: no answer" in capsys.readouterr().err


def test_a_server_that_fails_is_named(server: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.refuse = (400, "bad\n  request")
    assert main(pipeline.build, ["submit", "--host", server.url, *DATA]) == 2
    assert "failed (400)" in capsys.readouterr().err


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"train_accelerators": "eight"}, "train_accelerators: found 'eight'; expected a whole number as text"),
    ({"train_accelerators": "-1"}, "train_accelerators: found '-1'"),
    ({"train_memory": "64 GB"}, "train_memory: found '64 GB'; expected a size"),
    ({"train_cpu": "0"}, "train_cpu: found '0'"),
    ({"storage_secret": ""}, "storage_secret: found ''; expected the name of a Kubernetes object"),
    ({"accelerator_tolerations": [{"key": "a", "effect": "Never"}]}, "accelerator_tolerations: found"),
    ({"recipe": "tinny"}, "recipe: recipe: found 'tinny'"),
    ({"finetune_overrides": '{"finetune.max_stepz": 1}'}, "max_stepz: unknown field"),
    (
        {"finetune_overrides": '{"finetune.kernels": "liger"}', "train_accelerators": "0"},
        "finetune.kernels liger needs a GPU, but train_accelerators is 0; expected torch",
    ),
    ({"processes": "8", "train_accelerators": "4"}, "processes: 8 a node, but train_accelerators is 4"),
    ({"processes": "many"}, "processes: found 'many'"),
    ({"finetune_overrides": '{"finetune.nodes": 2}'}, "train_accelerators: found 1; with finetune.nodes 2"),
    ({"finetune_overrides": '{"finetune.nodes": 2}', "train_job": "{"}, "train_job: not JSON"),
    ({"finetune_overrides": '{"finetune.nodes": 2}', "train_job": '{"gpus": 8}'}, "gpus: unknown field"),
    (
        {"finetune_overrides": '{"finetune.nodes": 64}', "train_job": '{"accelerators": 8}'},
        "fewer rows than the 512 ranks of 64 nodes with 8 processes each",
    ),
    ({"expand_annotations_uri": "x" * 10_001}, "all parameters take"),
    (
        {"recipe": "llava-v1.5-7b", "train_accelerators": "8"},
        "train_memory: found '64Gi'; finetune of recipe llava-v1.5-7b on 8 ranks a node needs",
    ),
    (
        {
            "recipe": "llava-v1.5-13b",
            "finetune_overrides": '{"finetune.nodes": 2}',
            "train_accelerators": "0",
            "train_job": '{"accelerators": 8, "memory": "400Gi", "scratch": "20Gi"}',
        },
        "train_job.scratch: found '20Gi'; finetune of recipe llava-v1.5-13b on 8 ranks a node needs",
    ),
]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_once(pipeline.build, "full", tmp_path_factory.mktemp("full"), ClusterOptions())[0]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_what_cannot_run_is_refused_before_a_pod_exists(full: Path, arguments: dict[str, Any], said: str) -> None:
    sound = {"recipe": "tiny", "images_uri": "s3://b/i", "train_accelerators": "1"}
    assert check_run(full, sound) == []
    assert any(said in fault for fault in check_run(full, {**sound, **arguments}))


@pytest.mark.slow
def test_what_is_asked_of_a_node_by_default_holds_the_bundled_recipes(full: Path) -> None:
    """Volumes are set when a package is compiled: they hold any bundled recipe on 8 GPUs. Memory is a parameter: its
    default holds what fits one GPU, and a refusal names what the others need.
    """
    for name in bundled_recipes():
        values = {"recipe": name, "images_uri": "s3://b/i", "train_accelerators": "8"}
        faults = check_run(full, values)
        assert not [fault for fault in faults if not fault.startswith("train_memory")], name
        for fault in faults:
            enough = re.search(r'expected at least "(\d+Gi)"', fault)
            assert enough is not None
            assert fault not in check_run(full, {**values, "train_memory": enough[1]})
        if name.endswith("-lora"):
            assert check_run(full, {**values, "train_accelerators": "1"}) == [], name


def test_a_local_rerun_that_is_interrupted_says_how_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(str(tmp_path / "runs"), "run-a", ["expand", "pretrain", "finetune"])
    for model in (tmp_path / "runs").rglob("finetune/*/model"):
        (model / "config.json").write_text("{}")

    def interrupted(package: Path, arguments: object, options: LocalOptions) -> None:
        assert options.root == tmp_path / "runs" and options.artifacts is None
        raise KeyboardInterrupt

    monkeypatch.setattr("llava.local.run.run_package", interrupted)
    again = ["rerun", "--run", "run-a", "--only", "export", "--local", "--root", str(tmp_path / "runs")]
    with pytest.raises(SystemExit) as ended:
        make_app(pipeline.build)(again, standalone_mode=True)
    assert ended.value.code == 130
    assert "pipeline: interrupted; the same command resumes from here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("health", "profile"),
    [
        ({"commit_sha": "x", "multi_user": True}, "team"),
        # as the UI answers for the API (frontend/server/handlers/healthz.ts, before it had `multi_user` too)
        ({"apiServerReady": True, "apiServerMultiUser": True, "frontendTagName": "2.14.0"}, "team"),
        ({"apiServerReady": True, "apiServerMultiUser": False}, None),
        ({"multi_user": False}, None),
    ],
)
def test_several_users_are_seen_through_the_ui_as_well(
    health: dict[str, Any], profile: str | None, server: KfpServer
) -> None:
    server.health = health
    assert Service(server.url, "team").profile == profile


@pytest.mark.slow
def test_images_that_no_digest_pins_are_refused(server: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAVA_ALLOW_UNPINNED")
    with pytest.raises(SettingsError, match=r"not pinned by digest: llava-.*:dev.*--allow-unpinned"):
        call("submit", "--host", server.url, *DATA)
    assert not server.runs
    call("submit", "--host", server.url, "--allow-unpinned", *DATA)
    call("submit", "--host", server.url, "--allow-unpinned", "--service-account", "", *DATA)
    ours, kubeflows = server.of("POST", "/runs")
    assert ours["service_account"] == "llava-runner" and not kubeflows.get("service_account")
