"""`llava announce`: tell a webhook, once each, of the runs that have ended. A CronJob runs it beside Kubeflow."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from llava import storage
from llava.errors import SettingsError, UserError

app = typer.Typer()


@app.command()
def announce(
    api: Annotated[str, typer.Option(help="URL of Kubeflow Pipelines' API")] = "http://ml-pipeline:8888",
    told: Annotated[
        str,
        typer.Option(help="Folder or s3:// URI that remembers which runs were told of", show_default="ROOT/announced"),
    ] = "",
    root: Annotated[str, typer.Option(help="Pipeline root of runs that name none: where figures are read")] = "",
    ui: Annotated[str, typer.Option(help="URL of Kubeflow's UI, for links")] = "",
    namespace: Annotated[str, typer.Option(help="Profile, in a multi-user installation")] = "",
    only: Annotated[str, typer.Option(help="Runs whose name fits this regular expression")] = "",
    since_hours: Annotated[float, typer.Option(min=0.01, help="Runs that ended within so many hours")] = 24.0,
) -> None:
    """Post state, figures and links of every run that has ended to LLAVA_WEBHOOK_URL (Slack's form), once.

    It looks from outside and changes no run. What a webhook does not take is tried again the next time; exits with 2
    then, so that the CronJob shows it.
    """
    from llava.cli.announcing import ended_runs, message, post, with_records

    webhook = os.environ.get("LLAVA_WEBHOOK_URL", "")
    if not webhook.startswith(("http://", "https://")):
        raise SettingsError("LLAVA_WEBHOOK_URL: expected the URL of a webhook (from Secret llava-webhook)")
    memory = told or (storage.join(root, "announced") if root else "")
    if not memory:
        raise SettingsError("give --root or --told: without it, every run would be told of again and again")
    try:
        wanted = re.compile(only)
    except re.error as error:
        raise SettingsError(f"--only: found {only!r}; expected a regular expression: {error}") from error
    since = datetime.now(UTC) - timedelta(hours=since_hours)
    token = os.environ.get("KF_PIPELINES_TOKEN", "")
    done = {file.path for file in storage.list_files(memory)}
    refused = []
    for run in ended_runs(api, namespace=namespace, since=since, token=token):
        if run.run in done or not wanted.search(run.name):
            continue
        try:
            run = with_records(run, root)
        except UserError as error:  # the end is news without its figures too
            typer.echo(f"announce: {run.run}: figures could not be read: {error}", err=True)
        if fault := post(webhook, message(run, ui)):
            refused.append(f"{run.run}: {fault}")
            continue
        storage.write_text(storage.join(memory, run.run), run.state)
        typer.echo(f"told of {run.run} ({run.state})")
    if refused:
        raise UserError("not told, tried again the next time; the runs stand as they are:\n" + "\n".join(refused))
