"""The probes of the cluster test: what is done, what is expected by the promises of docs/operations.md, what was seen.

Each probe returns what it saw and whether that is what was expected; the suite measures, prints and cleans up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llava import storage
from llava.errors import UserError
from llava.pipelines.checks.spec import read_spec
from llava.pipelines.clustertest import pods as rights
from llava.pipelines.clustertest.pods import Pod, PodGone, Right
from llava.pipelines.clustertest.runs import Ended, Runs
from llava.pipelines.clustertest.world import Size, run_parameters, training
from llava.pipelines.earlier import find_run, pick
from llava.pipelines.graph import STAGES, plan_package

_STOP_S = 180.0


@dataclass(frozen=True)
class Seen:
    """What a probe saw; `expected` says whether it is what was promised."""

    text: str
    expected: bool
    run: str = ""


@dataclass
class Bench:
    """What the probes work with.

    Attributes:
        runs: the endpoint and the store.
        data: pipeline parameters that lead to the world.
        size: of pods and training.
        nodes: of the TrainJob probe.
        first: id of the first full run, once it has succeeded; later probes stand on its artifacts.
    """

    runs: Runs
    data: Mapping[str, Any]
    size: Size
    nodes: int = 1
    first: str = ""
    last: str = field(default="", init=False)

    def start(self, package: str, *, cache: bool = False, **further: Any) -> str:
        """Start a run of a package on the world, and on the first run's artifacts where it needs some."""
        declared = read_spec(self.runs.package_of(package))["root"]["inputDefinitions"]["parameters"]
        imports = plan_package(package).imports
        if imports:
            uris = pick(find_run(self.runs.root, self.first), imports)
            further = {**{imports[source]: uri for source, uri in uris.items()}, **further}
        arguments = run_parameters(declared, self.data, self.size, **further)
        arguments = {name: _text(value) if name.endswith("_overrides") else value for name, value in arguments.items()}
        self.last = self.runs.start(package, arguments, cache=cache)
        return self.last

    def start_long(self) -> str:
        """A training run that is long enough to be disturbed, with a checkpoint every few steps."""
        overrides = training("pretrain", self.size.fault_steps, self.size.save_every)
        return self.start("only-pretrain", pretrain_overrides=overrides)


@dataclass(frozen=True)
class Probe:
    """One probe.

    Attributes:
        name: on the command line and in the table.
        expected: what is promised.
        act: does it.
        rights: on the cluster, which the endpoint does not give.
        on_first: it needs the artifacts of a full run.
    """

    name: str
    expected: str
    act: Callable[[Bench], Seen]
    rights: Sequence[Right] = ()
    on_first: bool = True


def full(bench: Bench) -> Seen:
    """Every stage, end to end."""
    run = bench.start("full", cache=True)
    ended = bench.runs.wait(run)
    ran = [stage for stage in STAGES if stage in {record.stage for record in bench.runs.records(run)}]
    good = ended.state == "SUCCEEDED" and len(ran) == len(STAGES)
    if good:
        bench.first = run
    return Seen(f"{ended}; ran: {', '.join(ran) or 'nothing'}", good, run)


def from_cache(bench: Bench) -> Seen:
    """The same again: a stage from the cache leaves no record of its own in the store."""
    run = bench.start("full", cache=True)
    ended = bench.runs.wait(run)
    ran = [record.stage for record in bench.runs.records(run)]
    return Seen(f"{ended}; ran: {', '.join(ran) or 'nothing'}", ended.state == "SUCCEEDED" and not ran, run)


def only_pretrain(bench: Bench) -> Seen:
    """A single stage on the first run's artifacts."""
    return _stages(bench, bench.start("only-pretrain"), ("pretrain",))


def from_evaluate(bench: Bench) -> Seen:
    """The last stages on the first run's artifacts."""
    return _stages(bench, bench.start("from-evaluate"), ("evaluate", "export"))


def killed_worker(bench: Bench) -> Seen:
    """SIGKILL to a training process: the stage starts it again, in the same pod, from its last checkpoint."""
    assert bench.runs.pods is not None
    run = bench.start_long()
    found = _at_work(bench, run)
    if isinstance(found, Ended):
        return Seen(f"{found} before a worker could be killed; raise --fault-steps", False, run)
    try:
        said = bench.runs.pods.kill_worker(found)
    except PodGone as error:
        return Seen(f"the worker ended before it could be killed ({error}); raise --fault-steps", False, run)
    ended = bench.runs.wait(run)
    after = {pod.uid for pod in bench.runs.pods.of(run, "pretrain")} - {found.uid}
    return _resumed(bench, run, ended, f"{said}; {'in a new pod' if after else 'in the same pod'}")


def deleted_pod(bench: Bench) -> Seen:
    """A pod deleted as by a lost node: Argo starts another, which resumes from the last checkpoint."""
    assert bench.runs.pods is not None
    run = bench.start_long()
    found = _at_work(bench, run)
    if isinstance(found, Ended):
        return Seen(f"{found} before a pod could be deleted; raise --fault-steps", False, run)
    bench.runs.pods.delete(found)
    ended = bench.runs.wait(run)
    return _resumed(bench, run, ended, f"deleted {found.name}")


def terminated(bench: Bench) -> Seen:
    """A run that is terminated is gone with its pods, and writes nothing more."""
    runs = bench.runs
    run = bench.start_long()
    found = runs.until(run, lambda: runs.has_checkpoint(run))
    if isinstance(found, Ended):
        return Seen(f"{found} before it could be terminated; raise --fault-steps", False, run)
    asked = time.monotonic()
    runs.service.ask(lambda client: client.terminate_run(run), f"run {run}")
    ended = runs.wait(run)
    left: list[str] = []
    if runs.pods:
        while left := [pod.name for pod in runs.pods.of(run) if pod.phase in ("Pending", "Running")]:
            if time.monotonic() > asked + _STOP_S:
                break
            time.sleep(runs.poll_s)
    took = time.monotonic() - asked
    text = f"{ended.state} and {'pods left: ' + ', '.join(left) if left else 'no pod left'} after {took:.0f} s"
    # Kubeflow shows a terminated run as FAILED: the workflow ends so, and that is what is reported last.
    good = ended.state in ("CANCELED", "FAILED") and not left and took <= _STOP_S and not runs.records(run)
    return Seen(text if runs.pods else f"{ended.state} after {took:.0f} s (pods were not looked at)", good, run)


def bad_input(bench: Bench) -> Seen:
    """A user's mistake that only the stage can see fails the run."""
    nowhere = storage.join(str(bench.data["images_uri"]), "nowhere")
    run = bench.start("only-pretrain", images_uri=nowhere)
    ended = bench.runs.wait(run)
    pods = len(bench.runs.pods.of(run, "pretrain")) if bench.runs.pods else None
    text = f"{ended}{f'; {pods} pod(s)' if pods is not None else ''}"
    return Seen(text, ended.state == "FAILED" and not bench.runs.records(run), run)


def several_nodes(bench: Bench) -> Seen:
    """A TrainJob on several nodes."""
    job = {
        "accelerators": int(bench.size.accelerators), "cpu": bench.size.cpu, "memory": bench.size.memory,
        "shm": "1Gi", "scratch": "5Gi",
    }  # fmt: skip
    overrides = training("pretrain", bench.size.steps, max(bench.size.steps // 3, 1), nodes=bench.nodes)
    run = bench.start("only-pretrain", pretrain_overrides=overrides, train_job=json.dumps(job), train_accelerators="0")
    ended = bench.runs.wait(run)
    ranks = 0
    for record in bench.runs.records(run):
        manifest = storage.read_json(storage.join(record.outputs["projector"], "manifest.json"))
        ranks = int(manifest["extra"]["world_size"])
    return Seen(f"{ended}; {ranks} ranks", ended.state == "SUCCEEDED" and ranks >= bench.nodes, run)


def probes(nodes: int) -> list[Probe]:
    """Every probe in order; the TrainJob's only where several nodes are asked for."""
    retry = "SUCCEEDED, resumed from a checkpoint"
    found = [
        Probe("full", "SUCCEEDED, five stages ran", full, on_first=False),
        Probe("cache", "SUCCEEDED, nothing ran", from_cache),
        Probe("only-pretrain", "SUCCEEDED, pretrain ran", only_pretrain),
        Probe("from-evaluate", "SUCCEEDED, evaluate and export ran", from_evaluate),
        Probe("kill-worker", retry, killed_worker, (rights.LIST_PODS, *rights.EXEC_IN_PODS)),
        Probe("delete-pod", retry, deleted_pod, (rights.LIST_PODS, rights.DELETE_PODS)),
        Probe("terminate", "FAILED or CANCELED, no pod left, nothing written", terminated),
        Probe("bad-input", "FAILED", bad_input),
    ]
    if nodes > 1:
        found.append(Probe("nodes", f"SUCCEEDED, at least {nodes} ranks", several_nodes))
    return found


def _stages(bench: Bench, run: str, wanted: tuple[str, ...]) -> Seen:
    ended = bench.runs.wait(run)
    ran = sorted(record.stage for record in bench.runs.records(run))
    return Seen(
        f"{ended}; ran: {', '.join(ran) or 'nothing'}", ended.state == "SUCCEEDED" and ran == sorted(wanted), run
    )


def _at_work(bench: Bench, run: str) -> Pod | Ended:
    """The pod of a training stage that has written a checkpoint and goes on; or how the run ended before that."""
    runs, cluster = bench.runs, bench.runs.pods
    assert cluster is not None

    def look() -> Pod | None:
        if not runs.has_checkpoint(run):
            return None
        return next((pod for pod in cluster.of(run, "pretrain") if pod.phase == "Running"), None)

    return runs.until(run, look)


def _resumed(bench: Bench, run: str, ended: Ended, what: str) -> Seen:
    steps = [record.metrics.get("resumed_from_step", 0.0) for record in bench.runs.records(run)]
    said = f"resumed from step {steps[0]:.0f}" if steps and steps[0] else "began anew" if steps else "no result"
    return Seen(f"{what}; {ended}; {said}", ended.state == "SUCCEEDED" and any(steps), run)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def chosen(names: Sequence[str], every: Sequence[Probe]) -> list[Probe]:
    """The probes of these names, all of them without a name; `full` too where another stands on it.

    Raises:
        UserError: no probe of such a name.
    """
    known = {probe.name for probe in every}
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--probe: found {', '.join(unknown)}; expected some of {', '.join(p.name for p in every)}")
    wanted = set(names) or known
    if any(probe.on_first for probe in every if probe.name in wanted):
        wanted.add("full")
    return [probe for probe in every if probe.name in wanted]
