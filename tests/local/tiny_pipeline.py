"""The tiny stages as a real Kubeflow pipeline, compiled by kfp."""

# No `from __future__ import annotations`: kfp reads the annotations themselves, not their text.

from pathlib import Path
from typing import NamedTuple

from kfp import compiler, dsl

ARGS = ["--executor-input", "{{$}}"]


@dsl.container_component
def make(
    log: str,
    data: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    rows: int = 3,
    scale: float = 1.5,
    loud: bool = False,
) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image="tiny:1", command=["python", "-m", "tests.local.tiny_stages", "make"], args=ARGS)


@dsl.container_component
def learn(
    log: str,
    data: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    rate: float = 0.5,
    fail: str = "",
) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image="tiny:1", command=["python", "-m", "tests.local.tiny_stages", "learn"], args=ARGS)


@dsl.container_component
def judge(
    log: str, model: dsl.Input[dsl.Model], metrics: dsl.Output[dsl.Metrics], data: dsl.Input[dsl.Dataset] = None
) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image="tiny:1", command=["python", "-m", "tests.local.tiny_stages", "judge"], args=ARGS)


class Results(NamedTuple):
    data: dsl.Dataset
    report: dsl.HTML
    model: dsl.Model
    make_metrics: dsl.Metrics
    judge_metrics: dsl.Metrics


@dsl.pipeline(name="tiny")
def tiny(log: str, rows: int = 3, rate: float = 0.5, fail: str = "") -> Results:
    made = make(log=log, rows=rows)
    made.set_retry(2, backoff_duration="60s")
    learnt = learn(log=log, data=made.outputs["data"], rate=rate, fail=fail)
    learnt.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit("1").set_retry(3, backoff_duration="60s")
    learnt.set_env_variable("TINY_VARIABLE", "carried").set_env_variable("LLAVA_METRICS_PORT", "9464")
    judged = judge(log=log, model=learnt.outputs["model"])
    return Results(
        made.outputs["data"],
        made.outputs["report"],
        learnt.outputs["model"],
        made.outputs["metrics"],
        judged.outputs["metrics"],
    )


class JudgeResults(NamedTuple):
    judge_metrics: dsl.Metrics


@dsl.pipeline(name="only-judge")
def only_judge(log: str, model_uri: str) -> JudgeResults:
    imported = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model, reimport=False)
    return JudgeResults(judge(log=log, model=imported.output).outputs["metrics"])


def compile_tiny(folder: Path) -> Path:
    """The compiled package of `tiny`."""
    path = folder / "tiny.yaml"
    compiler.Compiler().compile(tiny, str(path))
    return path


def compile_only_judge(folder: Path) -> Path:
    """The compiled package of `only-judge`."""
    path = folder / "only-judge.yaml"
    compiler.Compiler().compile(only_judge, str(path))
    return path
