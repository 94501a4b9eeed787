"""Argo's retry rule on every compiled package, under each policy: how many attempts, and never one that is killed.

The expected numbers are Argo's rule by hand: one attempt, and `maxRetryCount` more where the policy covers what
happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from llava.pipelines.graph import package_names
from llava.pipelines.resources import HOUR, NEEDS
from tests.pipelines.backend.argo import Phase, Pod, Strategy, run_stage
from tests.pipelines.golden import FOLDER

STOCK_2_17 = Strategy(limit=2, policy="OnError")  # workflow-controller-configmap-patch.yaml, 2.17.0
OURS = Strategy(limit=0, policy="Always")  # docs/operations.md
DEFAULTS: dict[str, Strategy | None] = {
    "OnError": STOCK_2_17,
    "OnFailure": None,  # 2.14 to 2.16 ship no defaults
    "Always": OURS,
}
MINUTE = 60.0


def stages_of(package: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(stage, task) of a golden package, which is the compiled one."""
    spec = next(iter(yaml.safe_load_all((FOLDER / f"{package}.yaml").read_text())))
    yield from spec["root"]["dag"]["tasks"].items()


ALL = [(package, stage, task) for package in package_names() for stage, task in stages_of(package)]
EACH = pytest.mark.parametrize(("package", "stage", "task"), ALL, ids=[f"{p}:{s}" for p, s, _ in ALL])
AFTER = pytest.mark.parametrize("after", [30.0, 40 * MINUTE, 20 * HOUR], ids=["30s", "40min", "20h"])


@EACH
@AFTER
@pytest.mark.parametrize(
    ("policy", "phase", "retried"),
    [
        ("OnError", "Error", True),
        ("OnError", "Failed", False),
        ("OnFailure", "Failed", True),
        ("OnFailure", "Error", False),
        ("Always", "Failed", True),
        ("Always", "Error", True),
    ],
)
def test_one_failure_and_then_the_longest_attempt(
    package: str, stage: str, task: dict[str, Any], after: float, policy: str, phase: Phase, retried: bool
) -> None:
    """The second attempt takes all the time that its deadline allows, and is let live."""
    longest = Pod("Succeeded", NEEDS[stage].deadline_h * HOUR)
    ended, trace = run_stage(task, DEFAULTS[policy], lambda attempt: longest if attempt else Pod(phase, after))
    assert trace.killed == 0
    assert ended == ("Succeeded" if retried else phase)
    assert len(trace.attempts) == (2 if retried else 1)


@EACH
def test_every_attempt_may_take_its_whole_deadline(package: str, stage: str, task: dict[str, Any]) -> None:
    retries, deadline = NEEDS[stage].retries, NEEDS[stage].deadline_h * HOUR
    ended, trace = run_stage(
        task, OURS, lambda attempt: Pod("Succeeded" if attempt == retries else "Error", deadline - 1.0)
    )
    assert (ended, trace.killed, len(trace.attempts)) == ("Succeeded", 0, retries + 1)


@EACH
@AFTER
def test_retries_end(package: str, stage: str, task: dict[str, Any], after: float) -> None:
    """What fails for ever is given up after the package's own retries; no level around repeats it under our patch."""
    ended, trace = run_stage(task, OURS, lambda attempt: Pod("Failed", after))
    assert (ended, len(trace.attempts), trace.killed) == ("Failed", NEEDS[stage].retries + 1, 0)


def test_a_default_limit_repeats_the_levels_around() -> None:
    """Why the patch sets the limit to 0: under stock 2.17 a pod that is lost for ever is begun 6 x 3 x 3 x 3 times."""
    task = dict(stages_of("full"))["finetune"]
    _, stock = run_stage(task, STOCK_2_17, lambda attempt: Pod("Error", 30.0))
    assert len(stock.attempts) == 6 * 3**3
    _, always = run_stage(task, Strategy(limit=2, policy="Always"), lambda attempt: Pod("Failed", 30.0))
    assert len(always.attempts) == 6 * 3**3


def test_the_rule_finds_what_was_wrong() -> None:
    """The window of half an hour: a training that loses its pod in minute 5 was killed in minute 30, and ended so."""
    task = dict(stages_of("full"))["finetune"]
    short = {**task, "retryPolicy": {**task["retryPolicy"], "backoffMaxDuration": "1800s"}}
    ten_hours = Pod("Succeeded", 10 * HOUR)
    ended, trace = run_stage(short, OURS, lambda attempt: ten_hours if attempt else Pod("Error", 5 * MINUTE))
    assert ended == "Failed" and trace.killed == 1 and trace.attempts[1][1] == 1800.0
    ended, trace = run_stage(short, OURS, lambda attempt: Pod("Error", 40 * MINUTE))
    assert len(trace.attempts) == 1, "past the window nothing is retried"
