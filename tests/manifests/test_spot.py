"""The recipe of docs/spot.md: which nodes its runs get by Kueue's rule, and that they survive what spot nodes do."""

from __future__ import annotations

import os
from pathlib import Path

import jsonschema
import pytest

import pipeline
from llava.config import load_recipe
from llava.pipelines.options import read_parameters
from llava.pipelines.remote_commands import checked
from llava.pipelines.resources import HOUR, NEEDS, TOLERATE_GPU_TAINT, ClusterOptions
from tests.compile_once import compile_once
from tests.manifests.conftest import MANIFESTS, Resource, render
from tests.manifests.crd_schemas import SPECS
from tests.manifests.test_queues import GPU, assign
from tests.pipelines.backend.argo import Phase, Pod, Strategy, run_stage
from tests.pipelines.backend.test_retries import DEFAULTS, MINUTE, stages_of

PARAMETERS = MANIFESTS / "components" / "spot" / "parameters.yaml"


@pytest.fixture
def queueing(tmp_path: Path) -> tuple[Resource, ...]:
    """The component behind `queueing`, as docs/spot.md says to list it."""
    here = os.path.relpath(MANIFESTS / "components", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(f"components:\n  - {here}/queueing\n  - {here}/spot\n")
    resources = render(tmp_path)
    for resource in resources:
        if schema := SPECS.get((resource["apiVersion"], resource["kind"])):
            jsonschema.validate(resource.get("spec", {}), schema)
    return resources


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "evaluate"])
def test_a_run_that_tolerates_spot_goes_there_first(stage: str, queueing: tuple[Resource, ...]) -> None:
    tolerations = read_parameters(str(PARAMETERS), None)["accelerator_tolerations"]
    asked = {"cpu": NEEDS[stage].cpu, "memory": NEEDS[stage].memory, GPU: "8"}
    assert assign(queueing, asked, tolerations=tolerations) == "llava-spot"
    taken = {("llava-spot", GPU): 1}
    assert assign(queueing, asked, tolerations=tolerations, used=taken) == "llava-gpu"
    assert assign(queueing, asked, tolerations=TOLERATE_GPU_TAINT) == "llava-gpu", "nobody goes there unasked"


def test_stages_without_gpu_stay_on_ordinary_nodes(queueing: tuple[Resource, ...]) -> None:
    asked = {"cpu": NEEDS["expand"].cpu, "memory": NEEDS["expand"].memory}
    assert assign(queueing, asked) == "llava-cpu"
    assert assign(queueing, asked, used={("llava-cpu", "cpu"): 32}) is None


def test_the_parameters_are_the_pipelines(tmp_path: Path) -> None:
    package, _ = compile_once(pipeline.build, "full", tmp_path, ClusterOptions())
    given = read_parameters(str(PARAMETERS), None)
    own = {"expand_annotations_uri": "s3://b/a", "evaluate_questions_uri": "s3://b/q"}
    assert checked(package, {**own, **given}).keys() >= given.keys()
    for stage in ("pretrain", "finetune"):
        recipe = load_recipe("llava-v1.5-7b", given[f"{stage}_overrides"])
        assert getattr(recipe, stage).save_every_steps < load_recipe("llava-v1.5-7b").finetune.save_every_steps


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.parametrize(
    ("policy", "phase", "finishes"),
    [
        ("Always", "Failed", True),  # a node that shuts down in order fails its pods
        ("Always", "Error", True),  # a deleted pod: drained, or evicted by Kueue
        ("OnError", "Error", True),
        ("OnError", "Failed", False),  # why docs/spot.md asks for Always
        ("OnFailure", "Error", False),
    ],
)
def test_five_interruptions_are_survived_and_not_six(stage: str, policy: str, phase: Phase, finishes: bool) -> None:
    task = dict(stages_of("full"))[stage]
    defaults: Strategy | None = DEFAULTS[policy]

    def interrupted(times: int) -> tuple[Phase, int]:
        ended, trace = run_stage(
            task, defaults, lambda n: Pod(phase, 40 * MINUTE) if n < times else Pod("Succeeded", 20 * HOUR)
        )
        assert trace.killed == 0
        return ended, len(trace.attempts)

    ended, attempts = interrupted(5)
    assert (ended == "Succeeded") is finishes and attempts == (6 if finishes else 1)
    if policy == "Always":  # 2.17's own limit repeats the levels around a stage, from its beginning
        assert interrupted(6) == (phase, 6)
