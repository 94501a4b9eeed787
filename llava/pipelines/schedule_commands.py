"""`pipeline.py schedule create|list|pause|resume|delete`: runs that Kubeflow starts by itself."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

import typer

from llava.errors import SettingsError
from llava.pipelines import cron
from llava.pipelines import options as opt
from llava.pipelines.checks.cluster_check import RunRequest
from llava.pipelines.options import pairs, read_parameters
from llava.pipelines.package import compile_package
from llava.pipelines.parameters import require_sound_run
from llava.pipelines.remote_commands import PACKAGES, ask_cluster, checked, require_pinned_images
from llava.pipelines.resources import ClusterOptions
from llava.pipelines.service import Service

MOST_AT_ONCE = 10  # Kubeflow's own limit of max_concurrency
MOST_MISSED = 50
ScheduleArgument = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Id, as `schedule list` shows it")]


def add_schedule(app: typer.Typer, build: opt.Build) -> None:
    """Add the group of commands to `app`, over a factory of pipelines."""
    group = typer.Typer(no_args_is_help=True, help="Runs that Kubeflow starts by itself: create, list, pause, resume.")
    app.add_typer(group, name="schedule")

    @group.command()
    def create(
        name: Annotated[str, typer.Option(help="Name of the schedule; of its runs too")],
        expression: Annotated[
            str, typer.Option("--cron", help="Minute, hour, day of month, month, day of week: '0 3 * * 1'")
        ],
        param: opt.ParamOption = None,
        params: opt.FileOption = None,
        package: opt.PackageOption = "full",
        start: Annotated[str | None, typer.Option(help="Not before this time, ISO 8601, UTC unless it says")] = None,
        end: Annotated[str | None, typer.Option(help="Not after this time")] = None,
        catch_up: Annotated[
            bool, typer.Option("--catch-up/--no-catch-up", help="Also start the runs that were missed while paused")
        ] = False,
        at_once: Annotated[int, typer.Option(min=1, max=MOST_AT_ONCE, help="Runs that may run at the same time")] = 1,
        paused: Annotated[bool, typer.Option("--paused", help="Do not start it yet; `schedule resume` does")] = False,
        host: opt.HostOption = None,
        namespace: opt.NamespaceOption = "kubeflow",
        experiment: opt.ExperimentOption = "llava",
        root: Annotated[str | None, typer.Option(help="Pipeline root", show_default="the service's")] = None,
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
        """Compile a package, check its parameters, and let Kubeflow start it by cron (in its own time zone, UTC)."""
        fields = cron.kubeflow_cron(expression)
        began, ends = _window(expression, start, end, catch_up)
        options = ClusterOptions(queue, priority, pairs(label, "--label"), hub_cache)
        arguments = require_sound_run(package, read_parameters(params, param), here=False)
        service = Service(host, namespace)
        compiled, loose = compile_package(build, package, PACKAGES, options, images)
        require_pinned_images(loose, allow_unpinned)
        arguments = checked(compiled, arguments)
        ask_cluster(RunRequest(compiled, arguments, namespace, service_account or None, queue), cluster_check, context)
        made = service.ask(
            lambda client: client.create_recurring_run(
                experiment_id=client.create_experiment(experiment, namespace=service.profile).experiment_id,
                job_name=name,
                cron_expression=fields,
                start_time=_rfc3339(began),
                end_time=_rfc3339(ends),
                max_concurrency=at_once,
                no_catchup=not catch_up,
                params=arguments,
                pipeline_package_path=str(compiled),
                pipeline_root=root,
                enable_caching=cache,
                service_account=service_account or None,
                enabled=not paused,
            )
        )
        after = max(began, datetime.now(UTC)) if began else datetime.now(UTC)
        coming = ", ".join(f"{time:%a %Y-%m-%d %H:%M}" for time in islice(cron.times(expression, after), 3))
        typer.echo(f"schedule {made.recurring_run_id}\n{'paused' if paused else 'next'}: {coming} UTC")

    @group.command("list")
    def list_schedules(host: opt.HostOption = None, namespace: opt.NamespaceOption = "kubeflow") -> None:
        """Every schedule: id, name, state, cron, what it does about missed runs."""
        for found in schedules(Service(host, namespace)):
            trigger = found.trigger and found.trigger.cron_schedule
            every = trigger.cron if trigger else "by interval"
            missed = "skips missed runs" if found.no_catchup else "catches up"
            typer.echo(f"{found.recurring_run_id}  {found.display_name}  {found.status}  {every}  {missed}")

    @group.command()
    def pause(
        schedule: ScheduleArgument, host: opt.HostOption = None, namespace: opt.NamespaceOption = "kubeflow"
    ) -> None:
        """Start no further runs; those under way go on."""
        Service(host, namespace).ask(lambda client: client.disable_recurring_run(schedule), f"schedule {schedule}")
        typer.echo(f"schedule {schedule}: paused")

    @group.command()
    def resume(
        schedule: ScheduleArgument, host: opt.HostOption = None, namespace: opt.NamespaceOption = "kubeflow"
    ) -> None:
        """Start runs again."""
        Service(host, namespace).ask(lambda client: client.enable_recurring_run(schedule), f"schedule {schedule}")
        typer.echo(f"schedule {schedule}: resumed")

    @group.command()
    def delete(
        schedule: ScheduleArgument, host: opt.HostOption = None, namespace: opt.NamespaceOption = "kubeflow"
    ) -> None:
        """Delete a schedule; its runs stay."""
        Service(host, namespace).ask(lambda client: client.delete_recurring_run(schedule), f"schedule {schedule}")
        typer.echo(f"schedule {schedule}: deleted")


def schedules(service: Service) -> list[Any]:
    """Every recurring run the service knows, as kfp's client gives it."""
    found: list[Any] = []
    token = ""
    while True:
        page = service.ask(
            lambda client, token=token: client.list_recurring_runs(  # type: ignore[misc]
                page_token=token, page_size=100, namespace=service.profile
            )
        )
        found += page.recurring_runs or []
        token = page.next_page_token or ""
        if not token:
            return found


def _window(
    expression: str, start: str | None, end: str | None, catch_up: bool
) -> tuple[datetime | None, datetime | None]:
    """Start and end, once it is seen that the schedule fires between them, and not too often at once."""
    now = datetime.now(UTC)
    began = cron.moment(start, "--start") if start else None
    ends = cron.moment(end, "--end") if end else None
    if ends and ends <= max(began or now, now):
        raise SettingsError(
            f"--end: {ends.isoformat()} is not after the {'start' if began and began > now else 'present'}"
        )
    if ends and next(cron.times(expression, max(began or now, now))) > ends:
        raise SettingsError(f"--cron: {expression!r} does not come before --end {ends.isoformat()}")
    if catch_up and began and began < now:
        due = cron.missed(expression, began, now, MOST_MISSED + 1)
        if due > MOST_MISSED:
            raise SettingsError(
                f"--catch-up from {began.isoformat()} would start more than {MOST_MISSED} runs at once; "
                "give a later --start"
            )
        typer.echo(f"note: {due} missed runs since {began.isoformat()} start at once", err=True)
    return began, ends


def _rfc3339(time: datetime | None) -> str | None:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if time else None
