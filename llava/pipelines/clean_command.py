"""`pipeline.py clean`: checkpoints and artifacts of old runs."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from llava.errors import SettingsError
from llava.pipelines.cleaning import CHECKPOINTS, CleaningPlan, delete_parts, plan_cleaning
from llava.pipelines.lookup import default_root
from llava.pipelines.options import ContextOption, HostOption, NamespaceOption
from llava.pipelines.service import Service


def add_clean(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @app.command()
    def clean(
        keep: Annotated[int | None, typer.Option(min=1, help="So many of the newest finished runs stay whole")] = None,
        run: Annotated[list[str] | None, typer.Option(help="Instead: this run, whatever its age; repeat")] = None,
        checkpoints_only: Annotated[
            bool, typer.Option("--checkpoints-only", help="Leave every other artifact, and the runs in Kubeflow")
        ] = False,
        delete: Annotated[bool, typer.Option("--delete", help="Delete; without it only the plan is shown")] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="With --delete: do not ask")] = False,
        root: Annotated[
            str | None, typer.Option(help="Pipeline root of the runs", show_default="the launcher's default")
        ] = None,
        host: HostOption = None,
        namespace: NamespaceOption = "kubeflow",
        context: ContextOption = None,
    ) -> None:
        """Show what old runs left, or --delete it: never of a run in progress, nor what a later run refers to."""
        if (keep is None) == (not run):
            raise SettingsError("give one of --keep and --run")
        service = Service(host, namespace)
        place = root or default_root(namespace, context)
        if not place:
            raise SettingsError("the pipeline root is not known; give --root, or a kubeconfig (--context)")

        def plan() -> CleaningPlan:
            return plan_cleaning(
                service, place, keep=keep or 0, only=tuple(run or ()), checkpoints_only=checkpoints_only
            )

        shown = plan()
        say(shown)
        if not delete:
            typer.echo("nothing was deleted; --delete does it")
            return
        if not shown.going:
            return
        if not yes:
            typer.confirm("Delete?", abort=True)
        # A run may have started while somebody read the plan.
        doing = plan()
        promised = {part.place for part in shown.going}
        for part in doing.parts:
            part.kept = part.kept or ("" if part.place in promised else "it was not in the plan that was shown")
        gone = delete_parts(service, doing)
        size = sum(part.bytes for part in doing.going)
        typer.echo(f"deleted {sum(len(part.files) for part in doing.going)} objects, {size / 1e9:.2f} GB")
        if gone:
            typer.echo(f"deleted from Kubeflow, so that its cache no longer names them: {', '.join(gone)}")


def say(plan: CleaningPlan) -> None:
    """The plan, by run."""
    for known in plan.runs:
        stays = known.run not in plan.old
        what = "in progress" if known.in_progress else known.state or "unknown to Kubeflow"
        typer.echo(f"{known.run}  {known.name}  {what}: {'stays' if stays else 'old'}")
        if stays:
            continue
        sizes: Counter[str] = Counter()
        for part in plan.parts:
            if part.run == known.run and not part.kept:
                sizes[CHECKPOINTS if part.output == CHECKPOINTS else "artifacts"] += part.bytes
            elif part.run == known.run and part.kept != "not a checkpoint":
                typer.echo(f"  stays: {part.place} ({part.kept})")
        for kind, size in sorted(sizes.items()):
            typer.echo(f"  {kind}: {size / 1e6:.1f} MB")
    typer.echo(f"to delete: {sum(part.bytes for part in plan.going) / 1e9:.2f} GB of {len(plan.old)} old runs")
