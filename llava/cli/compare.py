"""`llava compare A B ...`: which model is better, by how much, and on which questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from llava import storage
from llava.errors import SettingsError

if TYPE_CHECKING:
    from llava.evaluation.comparing import Comparison

app = typer.Typer(add_completion=False)


@app.command("compare")
def compare(
    predictions: Annotated[
        list[str],
        typer.Argument(help="Predictions of finished evaluations: folders or files, as PLACE or LABEL=PLACE"),
    ],
    out: Annotated[str, typer.Option(help="Folder or URI for report.html and comparison.json; empty: none")] = "",
    profile: Annotated[str, typer.Option(help="How answers are read: llava-1.5 or robust")] = "llava-1.5",
    contender: Annotated[
        str, typer.Option(help="Whose answers of each folder: finetuned, blank, stage1")
    ] = "finetuned",
    history: Annotated[
        bool, typer.Option("--history", help="They are checkpoints in order: each against the one before, and a curve")
    ] = False,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Each against each other; default: each against the first")
    ] = False,
) -> None:
    """Paired differences of finished predictions, with clustered intervals, corrected for their number"""
    from llava.evaluation import comparing
    from llava.evaluation.benchmark import Profile

    if profile not in get_args(Profile):
        raise SettingsError(f"profile: found {profile!r}; expected one of {', '.join(get_args(Profile))}")
    if len(predictions) < 2:
        raise SettingsError(f"llava compare: found {len(predictions)} predictions; expected two or more")
    if history and all_pairs:
        raise SettingsError("llava compare: expected one of --history and --all-pairs")
    finished = [item for place in predictions for item in comparing.open_finished(place, contender)]
    found = comparing.compare(finished, cast(Profile, profile), successive=history, all_pairs=all_pairs)
    show(found, out, history=history)


def show(found: Comparison, out: str, *, history: bool) -> None:
    """Print a comparison, and write its page and its figures below `out` unless that is empty."""
    from llava.evaluation import comparison_report
    from llava.evaluation.table import as_text

    typer.echo(as_text(*comparison_report.figure_rows(found)))
    typer.echo("")
    typer.echo(as_text(*comparison_report.difference_rows(found)))
    if out:
        comparison_report.build_report(found, history=history).write(storage.join(out, "report.html"))
        storage.write_json(storage.join(out, "comparison.json"), comparison_report.as_json(found))
        typer.echo(f"\n{storage.join(out, 'report.html')}")
