"""What Argo does with a compiled package's retries: KFP's argocompiler and Argo's operator, in a few lines of each.

Written after the sources named at each function (kubeflow/pipelines 2.17.0, argo-workflows v4.0.5), with seconds for a
clock. The templates of one stage are nested as KFP nests them: entrypoint, root and the stage's own DAG, and within it
the container, which alone carries the package's retry policy; the controller's `templateDefaults` go under each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Phase = Literal["Succeeded", "Failed", "Error"]
# Nodes around a stage's container that are DAG templates, innermost last (argocompiler: argo.go, dag.go, container.go).
LEVELS = ("entrypoint", "root", "executor")


@dataclass(frozen=True)
class Strategy:
    """Argo's RetryStrategy; seconds. `limit` None: no end; no strategy at all is None in its place."""

    limit: int | None = None
    policy: str = ""
    duration: float | None = None
    factor: float = 0.0
    max_duration: float | None = None

    @property
    def actual(self) -> str:
        """RetryPolicyActual, workflow_types.go 2295."""
        return self.policy or "OnFailure"


@dataclass(frozen=True)
class Pod:
    """What one attempt's pod does.

    Attributes:
        phase: how it ends when it is left alone.
        seconds: after which.
    """

    phase: Phase
    seconds: float


@dataclass
class Trace:
    """What happened: (start, end, why) of each attempt's pod; `killed`: those ended by the window."""

    attempts: list[tuple[float, float, str]] = field(default_factory=list)
    killed: int = 0
    now: float = 0.0


def merged(own: Strategy | None, defaults: Strategy | None) -> Strategy | None:
    """mergedTemplateDefaultsInto, operator.go: a strategic merge, so what the template says itself stays."""
    if own is None or defaults is None:
        return own or defaults
    return Strategy(
        own.limit if own.limit is not None else defaults.limit,
        own.policy or defaults.policy,
        own.duration if own.duration is not None else defaults.duration,
        own.factor or defaults.factor,
        own.max_duration if own.max_duration is not None else defaults.max_duration,
    )


def strategy_of(task: dict[str, Any]) -> Strategy | None:
    """getTaskRetryParametersWithValues, container.go 614: four fields and no policy."""
    policy = task.get("retryPolicy")
    if not policy:
        return None

    def seconds(name: str) -> float:
        return float(str(policy[name]).removesuffix("s"))

    return Strategy(
        int(policy["maxRetryCount"]),
        "",
        seconds("backoffDuration"),
        float(policy["backoffFactor"]),
        seconds("backoffMaxDuration"),
    )


def run_node(strategy: Strategy | None, trace: Trace, child: Callable[[float | None], Phase]) -> Phase:
    """processNodeRetries, operator.go 978: children one after the other until one decides.

    Args:
        strategy: of the template, after the merge.
        trace: holds the clock.
        child: runs one child; it is given the time at which its pod is killed, None for never.
    """
    if strategy is None:
        return child(None)
    first, children, deadline = trace.now, 0, None
    while True:
        phase = child(deadline)
        children += 1
        if phase == "Succeeded":
            return phase
        if strategy.duration is not None:
            window = None if strategy.max_duration is None else first + strategy.max_duration
            if window is not None and trace.now > window:
                return phase  # "Max duration limit exceeded"
            wait = strategy.duration * (strategy.factor ** (children - 1) if strategy.factor else 1)
            if window is not None and trace.now + wait > window:
                return phase  # "Backoff would exceed max duration limit"
            if strategy.limit is None or children <= strategy.limit:
                trace.now += wait  # it waits before it looks at the policy, as seen on a cluster
            deadline = window  # opts.executionDeadline of the next pod, workflowpod.go 671
        on_failed = strategy.actual in ("Always", "OnFailure")
        on_error = strategy.actual in ("Always", "OnError")
        if (phase == "Failed" and not on_failed) or (phase == "Error" and not on_error):
            return phase
        if strategy.limit is not None and children > strategy.limit:
            return phase  # "No more retries left"


def run_stage(task: dict[str, Any], defaults: Strategy | None, pods: Callable[[int], Pod]) -> tuple[Phase, Trace]:
    """One stage of a compiled package under a controller's defaults.

    Args:
        task: of the pipeline spec.
        defaults: `templateDefaults.retryStrategy` of the controller's ConfigMap.
        pods: number of the attempt, from 0 -> what its pod does.
    """
    trace = Trace()

    def pod(deadline: float | None) -> Phase:
        started, does = trace.now, pods(len(trace.attempts))
        trace.now = started + does.seconds
        phase: Phase = does.phase
        if deadline is not None and trace.now > deadline:
            trace.now, phase = deadline, "Failed"  # exit 143, "Max duration limit exceeded"
            trace.killed += 1
        trace.attempts.append((started, trace.now, phase))
        return phase

    def container(deadline: float | None) -> Phase:
        return run_node(merged(strategy_of(task), defaults), trace, pod)

    child: Callable[[float | None], Phase] = container
    for _ in LEVELS:
        child = _dag(child, defaults, trace)
    return child(None), trace


def _dag(inner: Callable[[float | None], Phase], defaults: Strategy | None, trace: Trace) -> Callable[..., Phase]:
    """A DAG template has no strategy of its own; its phase is that of the task that failed (assessDAGPhase, dag.go)."""
    return lambda deadline: run_node(defaults, trace, inner)
