"""`submit`, `upload` and `rerun`: the commands of `pipeline.py` that speak to a service or to an earlier run."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llava import storage
from llava.errors import SettingsError
from llava.pipelines import options as opt
from llava.pipelines.checks.cluster import Cluster, NotAsked
from llava.pipelines.checks.cluster_check import RunRequest, check_cluster
from llava.pipelines.checks.preflight import require_sound
from llava.pipelines.checks.spec import read_spec
from llava.pipelines.graph import parameter_name, plan_package
from llava.pipelines.options import package_of, pairs, read_parameters
from llava.pipelines.package import compile_package
from llava.pipelines.parameters import require_sound_run
from llava.pipelines.resources import ClusterOptions
from llava.pipelines.service import Service, version_name
from llava.pipelines.values import check_arguments

if TYPE_CHECKING:
    from llava.local.run import LocalOptions
    from llava.pipelines.earlier import EarlierRun

PACKAGES = Path("build/pipelines")


def add_remote_commands(app: typer.Typer, build: opt.Build) -> None:
    """Add the commands to `app`, over a factory of pipelines."""

    @app.command()
    def submit(
        param: opt.ParamOption = None,
        params: opt.FileOption = None,
        package: opt.PackageOption = "full",
        host: opt.HostOption = None,
        namespace: opt.NamespaceOption = "kubeflow",
        experiment: opt.ExperimentOption = "llava",
        name: opt.NameOption = None,
        root: Annotated[
            str | None, typer.Option(help="Pipeline root: s3:// or minio://", show_default="the service's")
        ] = None,
        service_account: opt.AccountOption = opt.ACCOUNT,
        allow_unpinned: opt.UnpinnedOption = False,
        cache: opt.CacheOption = True,
        images: opt.LockOption = None,
        queue: opt.QueueOption = "",
        priority: opt.PriorityOption = "",
        label: opt.LabelOption = None,
        hub_cache: opt.HubCacheOption = "",
        cluster_check: opt.ClusterCheckOption = "refuse",
        context: opt.ContextOption = None,
    ) -> None:
        """Compile a package, check its parameters, start a run on Kubeflow Pipelines."""
        options = ClusterOptions(queue, priority, pairs(label, "--label"), hub_cache)
        arguments = require_sound_run(package, read_parameters(params, param), here=False)
        service = Service(host, namespace)
        compiled, loose = compile_package(build, package, PACKAGES, options, images)
        require_pinned_images(loose, allow_unpinned)
        arguments = checked(compiled, arguments)
        request = RunRequest(compiled, arguments, namespace, service_account or None, queue)
        ask_cluster(request, cluster_check, context)
        called = name or f"llava-{package} {time.strftime('%Y-%m-%d %H:%M')}"
        start(service, request, experiment=experiment, name=called, root=root, cache=cache)

    @app.command()
    def upload(
        package: opt.PackageOption = "full",
        host: opt.HostOption = None,
        namespace: opt.NamespaceOption = "kubeflow",
        version: Annotated[str | None, typer.Option(help="Name of the version", show_default="version+commit")] = None,
        images: opt.LockOption = None,
        require_pinned: opt.PinnedOption = False,
        queue: opt.QueueOption = "",
        priority: opt.PriorityOption = "",
        label: opt.LabelOption = None,
        hub_cache: opt.HubCacheOption = "",
    ) -> None:
        """Compile a package and upload it as a new version of its pipeline."""
        options = ClusterOptions(queue, priority, pairs(label, "--label"), hub_cache)
        compiled, loose = compile_package(build, package, PACKAGES, options, images)
        if loose and require_pinned:
            raise SettingsError(
                f"not pinned by digest: {', '.join(loose)}; build the images and update images.lock.json"
            )
        called = version or version_name()
        pipeline_id, version_id = Service(host, namespace).upload(compiled, f"llava-{package}", called)
        typer.echo(f"pipeline {pipeline_id}\nversion  {version_id} ({called})")

    @app.command()
    def rerun(
        run: Annotated[str, typer.Option(help="Id of the earlier run (locally: the name of its folder)")],
        from_stage: opt.FromOption = None,
        only_stage: opt.OnlyOption = None,
        resume: Annotated[
            bool, typer.Option("--resume", help="The first stage resumes from its checkpoints in that run")
        ] = False,
        param: opt.ParamOption = None,
        params: opt.FileOption = None,
        root: Annotated[
            str | None,
            typer.Option(help="Pipeline root of the earlier run", show_default="what the service says"),
        ] = None,
        local: Annotated[bool, typer.Option("--local", help="Run on this machine; ROOT is a local run's")] = False,
        work: Annotated[Path | None, typer.Option(help="With --local: folder for bookkeeping and cache")] = None,
        host: opt.HostOption = None,
        namespace: opt.NamespaceOption = "kubeflow",
        experiment: opt.ExperimentOption = "llava",
        name: opt.NameOption = None,
        service_account: opt.AccountOption = opt.ACCOUNT,
        allow_unpinned: opt.UnpinnedOption = False,
        cache: opt.CacheOption = True,
        images: opt.LockOption = None,
        queue: opt.QueueOption = "",
        priority: opt.PriorityOption = "",
        label: opt.LabelOption = None,
        hub_cache: opt.HubCacheOption = "",
        cluster_check: opt.ClusterCheckOption = "refuse",
        context: opt.ContextOption = None,
    ) -> None:
        """Run some stages again, on the artifacts of an earlier run and with its parameters."""
        from llava.pipelines.earlier import find_run, pick
        from llava.pipelines.lookup import look_up

        package = package_of(from_stage, only_stage)
        if package is None:
            raise SettingsError("give one of --from and --only")
        plan = plan_package(package)
        if local and not root:
            raise SettingsError("--local: give --root, the folder or URI of the earlier run's artifacts")
        place = root or ""
        service = None if local else Service(host, namespace)
        if service is not None:
            remote = service.run(run)
            place = root or remote.root
            earlier, uris = look_up(
                service, remote, plan.imports, plan.optional, root=root, namespace=namespace, context=context
            )
        else:
            earlier = find_run(place, run)
            uris = pick(earlier, plan.imports, plan.optional)
        resumed = resumed_from(earlier, plan.stages[0]) if resume else {}

        folder = local_folder(place, work) if local else PACKAGES
        options = ClusterOptions(queue, priority, pairs(label, "--label"), hub_cache)
        compiled, loose = compile_package(build, package, folder / "packages" if local else folder, options, images)
        if not local:
            require_pinned_images(loose, allow_unpinned)
        arguments = {
            **carried_over(compiled, earlier.arguments),
            **{plan.imports[source]: uri for source, uri in uris.items()},
            **resumed,
            **read_parameters(params, param),
        }
        for source, uri in uris.items():
            typer.echo(f"{source[1]:<16} {uri}")
        for uri in resumed.values():
            typer.echo(f"{'checkpoints':<16} {uri}")
        if service is None:
            from llava.local.run import LocalOptions

            artifacts = place if storage.is_remote(place) else None
            arguments = require_sound_run(package, arguments, here=True)
            run_here(compiled, arguments, LocalOptions(root=folder, artifacts=artifacts, cache=cache))
            return
        arguments = require_sound_run(package, arguments, here=False)
        request = RunRequest(compiled, checked(compiled, arguments), namespace, service_account or None, queue)
        ask_cluster(request, cluster_check, context)
        called = name or f"llava-{package} of {run}"
        start(service, request, experiment=experiment, name=called, root=place or None, cache=cache)


def require_pinned_images(loose: Collection[str], allowed: bool) -> None:
    """See that a run's images are content and not tags, which another push moves under a run and its cache.

    Raises:
        SettingsError: naming those that are not, unless they are allowed.
    """
    if loose and not allowed:
        raise SettingsError(
            f"not pinned by digest: {', '.join(sorted(loose))}; build the images and commit images.lock.json "
            "(python -m tools.images build --push), or --allow-unpinned"
        )


def resumed_from(earlier: EarlierRun, stage: str) -> dict[str, str]:
    """The parameter that makes `stage` resume where it stopped in an earlier run.

    Raises:
        SettingsError: a stage without checkpoints, or none was complete.
    """
    if stage not in ("pretrain", "finetune"):
        raise SettingsError(f"--resume: {stage} has no checkpoints; expected --from or --only pretrain or finetune")
    if stage not in earlier.checkpoints:
        raise SettingsError(
            f"--resume: run {earlier.run!r} left no complete checkpoint of {stage}; without it, it begins anew"
        )
    return {parameter_name(stage, "resume_uri"): earlier.checkpoints[stage]}


def local_folder(root: str, work: Path | None) -> Path:
    """Where a local run keeps its books: `work`, else the root where that is a folder, else `runs/local`."""
    return work or (Path("runs/local") if storage.is_remote(root) else storage.local_path(root))


def run_here(compiled: Path, arguments: dict[str, Any], options: LocalOptions) -> None:
    """Run a package on this machine and say what came out, or, after Ctrl-C, how to resume (exit status 130)."""
    from llava.local.run import INTERRUPTED, run_package

    try:
        record = run_package(compiled, arguments, options)
    except KeyboardInterrupt:  # typer would end without a word
        typer.echo(f"\npipeline: {INTERRUPTED}", err=True)
        raise typer.Exit(130) from None
    from llava.local.leavings import leave, table

    summary = leave(record, options.root)
    typer.echo(table(summary, options.root))


def start(service: Service, request: RunRequest, *, experiment: str, name: str, root: str | None, cache: bool) -> None:
    """Start a run, and say its id and where to look at it."""
    run = service.submit(
        request.package,
        request.arguments,
        experiment=experiment,
        name=name,
        root=root,
        cache=cache,
        service_account=request.service_account,
    )
    typer.echo(f"run {run}\n{service.url(run)}")


def ask_cluster(request: RunRequest, mode: opt.ClusterCheck, context: str | None) -> None:
    """Say what the cluster says against a run; where it cannot be asked, say that.

    Raises:
        SettingsError: naming every fault, when `mode` is `refuse`; or there is no such context.
    """
    if mode == "off":
        return
    try:
        cluster = Cluster(context)
        findings = check_cluster(cluster, request)
    except NotAsked as error:
        typer.echo(f"note: Secrets and nodes were not checked: {error}", err=True)
        return
    for note in findings.notes:
        typer.echo(f"note: {note}", err=True)
    if findings.faults and mode == "refuse":
        raise SettingsError(
            "\n".join([f"{cluster.where} cannot run this:", *findings.faults])
            + "\n--cluster-check warn submits it all the same (nodes that an autoscaler has yet to make, say)"
        )
    for fault in findings.faults:
        typer.echo(f"warning: {fault}", err=True)


def checked(compiled: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments in the package's types, after every check that needs no cluster.

    Raises:
        SettingsError: naming every fault.
    """
    spec = read_spec(compiled)
    values = check_arguments(spec, arguments)
    require_sound(compiled, values)
    return values


def carried_over(compiled: Path, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of an earlier run's arguments that this package has too; not what that run itself had resumed from."""
    spec = read_spec(compiled)
    declared = spec["root"]["inputDefinitions"]["parameters"]
    return {name: value for name, value in arguments.items() if name in declared and not name.endswith("_resume_uri")}
