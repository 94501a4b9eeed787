"""`pipeline.py clustertest`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from llava import storage
from llava.errors import SettingsError, UserError
from llava.pipelines.checks.cluster import Forbidden, NotAsked
from llava.pipelines.checks.lint import unpinned
from llava.pipelines.checks.retry_policy import policy_line
from llava.pipelines.clustertest import reach, suite
from llava.pipelines.clustertest.pods import Pods, Right
from llava.pipelines.clustertest.probes import Bench, chosen, probes
from llava.pipelines.clustertest.runs import Runs
from llava.pipelines.clustertest.world import MakeWorld, Size, put_world
from llava.pipelines.options import (
    Build,
    ContextOption,
    HostOption,
    LockOption,
    NamespaceOption,
    PriorityOption,
    QueueOption,
)
from llava.pipelines.package import compile_package
from llava.pipelines.resources import ClusterOptions
from llava.pipelines.service import Service

SURPRISE_EXIT = 1
_SIZE = Size()


def add_clustertest(app: typer.Typer, build: Build, make_world: MakeWorld) -> None:
    """Add the command to `app`, over a factory of pipelines and one of small worlds."""

    @app.command()
    def clustertest(
        host: HostOption = None,
        namespace: NamespaceOption = "kubeflow",
        bucket: Annotated[
            str | None,
            typer.Option(
                help="Place in a bucket that the runs may write to, s3://BUCKET/PREFIX",
                show_default="the launcher's default pipeline root",
            ),
        ] = None,
        nodes: Annotated[int, typer.Option(min=1, help="Nodes of the TrainJob probe; 1: without it")] = 1,
        probe: Annotated[list[str] | None, typer.Option(help="This probe only; repeat")] = None,
        accelerators: Annotated[str, typer.Option(help="Accelerators of a training pod")] = _SIZE.accelerators,
        cpu: Annotated[str, typer.Option(help="CPUs of each pod")] = _SIZE.cpu,
        memory: Annotated[str, typer.Option(help="Memory of each pod")] = _SIZE.memory,
        steps: Annotated[int, typer.Option(min=3, help="Training steps of an ordinary run")] = _SIZE.steps,
        fault_steps: Annotated[
            int, typer.Option(min=10, help="Training steps of a run that is disturbed")
        ] = _SIZE.fault_steps,
        minutes: Annotated[float, typer.Option(min=0.01, help="Minutes one run may take")] = 30.0,
        service_account: Annotated[
            str, typer.Option("--service-account", help="Service account of the runs' pods")
        ] = "llava-runner",
        images: LockOption = None,
        queue: QueueOption = "",
        priority: PriorityOption = "",
        context: ContextOption = None,
        out: Annotated[Path | None, typer.Option(help="Write the table here too, as JSON")] = None,
        keep: Annotated[bool, typer.Option("--keep", help="Remove nothing, to look into a surprise")] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it starts")] = False,
    ) -> None:
        """Test a Kubeflow: run a small world through it, disturb it, print what was expected and what was seen.

        Exits with 1 when something was not as expected. What it makes (runs, an experiment, objects below one prefix
        of the bucket) it removes, also when interrupted.
        """
        wanted = chosen(probe or [], probes(nodes))
        size = Size(cpu, memory, accelerators, steps, fault_steps)
        service = Service(host, namespace)
        pods = _cluster(namespace, context)
        lacking = _lacking(pods, [right for each in wanted for right in each.rights])
        place = (bucket or reach.bucket_of(pods, namespace)).rstrip("/")
        if not storage.is_remote(place):
            raise SettingsError(f"--bucket: found {place!r}; expected s3://BUCKET/PREFIX")
        name = f"clustertest-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        prefix = storage.join(place, name)
        names = ", ".join(each.name for each in wanted)
        typer.echo(
            f"{service.host}, namespace {namespace}: {len(wanted)} probes ({names}),\n"
            f"each one run, in experiment llava-{name};\n"
            f"pods of {cpu} CPU, {memory}, {accelerators} accelerators;\n"
            f"data and artifacts below {prefix}, some 50 MB; all of it is removed at the end."
        )
        if pods is not None:
            typer.echo(f"note: {policy_line(_readable(pods), namespace)}", err=True)
        for right in dict.fromkeys(lacking):
            typer.echo(f"note: no right to {right} in {namespace}: probes that need it are not run", err=True)
        folder = Path(tempfile.mkdtemp(prefix="llava-clustertest-"))
        options = ClusterOptions(queue, priority)
        compiled: dict[str, Path] = {}

        def package_of(package: str) -> Path:
            if package not in compiled:
                compiled[package], _ = compile_package(build, package, folder, options, images)
            return compiled[package]

        # What is wrong with the images is better known before anything is uploaded.
        if loose := unpinned(package_of("full")):
            typer.echo(f"note: no digest pins {', '.join(loose)}; the nodes must have them or can pull them", err=True)
        if not yes:
            if not sys.stdin.isatty():
                raise SettingsError("clustertest asks before it starts; give --yes where nobody can answer")
            typer.confirm("Start?", abort=True)

        def say(text: str) -> None:
            typer.echo(f"{time.strftime('%H:%M:%S')} {text}")

        with reach.reaching(pods, namespace, context) as how:
            say(f"the bucket is reached {how}")
            runs = Runs(
                service=service, pods=pods, experiment=f"llava-{name}", root=storage.join(prefix, "runs"),
                service_account=service_account or None, timeout_s=60 * minutes, package_of=package_of,
            )  # fmt: skip
            bench = Bench(runs, {}, size, nodes)
            rows: list[suite.Row] = []
            reach.require_writable(prefix)
            with suite.removing(bench, prefix, say, keep=keep):
                bench.data = put_world(make_world, prefix, say)
                rows = suite.run_probes(bench, wanted, lacking, say)
        typer.echo("\n" + suite.table(rows))
        if out:
            out.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")
        surprises = [row.probe for row in rows if row.verdict == "SURPRISE"]
        skipped = [row.probe for row in rows if row.verdict == "not run"]
        typer.echo(
            f"\n{len(rows)} probes, {len(surprises)} surprises{': ' + ', '.join(surprises) if surprises else ''}"
            + (f"; not run: {', '.join(skipped)}" if skipped else "")
        )
        if surprises:
            raise typer.Exit(SURPRISE_EXIT)


def _cluster(namespace: str, context: str | None) -> Pods | None:
    """The cluster that the kubeconfig leads to, when it is the one with that namespace."""
    try:
        pods = Pods(namespace, context)
        with contextlib.suppress(Forbidden):  # to read a namespace is no right of everybody's
            if pods.get(f"/api/v1/namespaces/{namespace}") is None:
                raise NotAsked(f"{pods.where} has no namespace {namespace!r}, so it is another cluster")
    except NotAsked as error:
        typer.echo(f"note: pods cannot be looked at or disturbed: {error}", err=True)
        return None
    return pods


def _readable(pods: Pods) -> Callable[[str], dict[str, Any] | None]:
    """Objects of the cluster as far as the caller may read them."""

    def read(path: str) -> dict[str, Any] | None:
        with contextlib.suppress(NotAsked):
            return pods.get(path)
        return None

    return read


def _lacking(pods: Pods | None, needed: list[Right]) -> list[Right]:
    if pods is None:
        return []
    try:
        return pods.lacking(list(dict.fromkeys(needed)))
    except UserError as error:
        typer.echo(f"note: what you may do there could not be asked: {error}", err=True)
        return []
