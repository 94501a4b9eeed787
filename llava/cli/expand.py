"""`llava expand plan`, `export-batch`, `import-batch`: what belongs to the expansion stage but is not a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llava.errors import SettingsError

if TYPE_CHECKING:
    from llava.expansion.job import Job
    from llava.expansion.plan import Plan

app = typer.Typer()

Annotations = Annotated[str, typer.Option("--annotations-uri", help="As in `llava expand`")]
Split = Annotated[str, typer.Option(help="Which files of an annotations folder")]
Prefix = Annotated[str, typer.Option("--image-prefix", help="Put before each file name")]
Kinds = Annotated[str, typer.Option(help="Kinds of rows, comma-separated")]
Recipe = Annotated[str, typer.Option("--expansion-recipe", help="Name, folder or URI of an expansion recipe")]
Model = Annotated[str, typer.Option("--teacher-model", help="Model name; part of every request's id")]
Limit = Annotated[int, typer.Option(help="Use only so many pictures; 0: all")]
Seed = Annotated[int, typer.Option(help="Decides every random choice")]
Blocklist = Annotated[str, typer.Option("--blocklist-uri", help="Files with evaluation pictures, comma-separated")]
BadRows = Annotated[float, typer.Option("--max-bad-rows", help="Largest share of broken annotation rows")]
LedgerUri = Annotated[str, typer.Option("--ledger-uri", help="Ledger folder shared between runs")]
Prices = Annotated[str, typer.Option(help="Price table (YAML); empty: the bundled one")]


@app.command("plan")
def plan(
    annotations_uri: Annotations,
    split: Split = "train",
    image_prefix: Prefix = "",
    kinds: Kinds = "conversation,detail,reasoning",
    expansion_recipe: Recipe = "coco",
    teacher_model: Model = "",
    limit: Limit = 0,
    seed: Seed = 0,
    blocklist_uri: Blocklist = "",
    max_bad_rows: BadRows = 0.01,
    ledger_uri: LedgerUri = "",
    prices: Prices = "",
    tokenizer: Annotated[
        str, typer.Option(help="tokenizer.json or hub directory; empty: the price table's, or an estimate")
    ] = "",
    requests_per_minute: Annotated[float, typer.Option(help="Rate at the endpoint; 0: no limit")] = 0.0,
    tokens_per_minute: Annotated[float, typer.Option(help="Rate at the endpoint; 0: no limit")] = 0.0,
    local_tokens_per_second: Annotated[
        float, typer.Option(help="Output rate of a teacher of your own; 0: not asked")
    ] = 0.0,
    local_price_per_hour: Annotated[float, typer.Option(help="What that teacher's machine costs an hour")] = 0.0,
) -> None:
    """Counts, tokens, cost and time of an expansion, before anything is spent."""
    from llava.expansion.ledger import Ledger
    from llava.expansion.plan import make_plan
    from llava.expansion.prices import load_prices
    from llava.expansion.tokens import TokenCounter

    job = _job(
        annotations_uri,
        split,
        image_prefix,
        kinds,
        expansion_recipe,
        teacher_model,
        limit,
        seed,
        blocklist_uri,
        max_bad_rows,
    )
    table = load_prices(prices)
    price = table.find(job.model)
    counter = TokenCounter(tokenizer or (price.tokenizer if price else ""))
    ledger = Ledger(ledger_uri) if ledger_uri else None
    made = make_plan(job, counter, ledger)
    if ledger is not None:
        ledger.close()
    _show_counts(made)
    if price is None:
        typer.echo(f"\nno price for {job.model!r} in the table; known: {', '.join(table.models)}")
    else:
        as_of = f", prices of {table.as_of}" if table.as_of else ""
        typer.echo(f"\ncost in {table.currency} with {job.model}{as_of}")
        for mode, cost in made.costs(price).items():
            typer.echo(f"  {mode:22} {cost:12,.2f}")
    minutes = made.minutes(requests_per_minute, tokens_per_minute)
    if minutes is not None:
        typer.echo(f"\ntime online at these rates: {_clock(minutes)}")
    if local_tokens_per_second:
        hours = made.usage(cached=True).output / local_tokens_per_second / 3600
        machine = f", {hours * local_price_per_hour:,.2f} for the machine" if local_price_per_hour else ""
        typer.echo(
            f"time with your own teacher at {local_tokens_per_second:g} output tokens/s: {_clock(60 * hours)}{machine}"
        )


@app.command("export-batch")
def export_batch(
    annotations_uri: Annotations,
    teacher_model: Model,
    to: Annotated[str, typer.Option(help="Folder or URI for requests-00000.jsonl, ...")],
    split: Split = "train",
    image_prefix: Prefix = "",
    kinds: Kinds = "conversation,detail,reasoning",
    expansion_recipe: Recipe = "coco",
    limit: Limit = 0,
    seed: Seed = 0,
    blocklist_uri: Blocklist = "",
    max_bad_rows: BadRows = 0.01,
    ledger_uri: LedgerUri = "",
) -> None:
    """Write what the ledger lacks as provider batch files (50,000 requests and 200 MB each)."""
    from llava.expansion.batch_files import export_batches
    from llava.expansion.dispatch import repaired
    from llava.expansion.ledger import Ledger

    job = _job(
        annotations_uri,
        split,
        image_prefix,
        kinds,
        expansion_recipe,
        teacher_model,
        limit,
        seed,
        blocklist_uri,
        max_bad_rows,
    )
    ledger = Ledger(ledger_uri or f"{to.rstrip('/')}/ledger")
    written = export_batches(job.requests(), ledger, to, repaired=repaired)
    ledger.close()
    for uri, requests, size in written:
        typer.echo(f"{uri}  {requests:,} requests  {size / 1e6:,.1f} MB")
    typer.echo(
        f"{sum(requests for _, requests, _ in written):,} requests in {len(written)} files; ids are the ledger's"
    )


@app.command("import-batch")
def import_batch(
    annotations_uri: Annotations,
    teacher_model: Model,
    ledger_uri: LedgerUri,
    answers: Annotated[str, typer.Option(help="Answer files of the batch interface or of vLLM, comma-separated")],
    split: Split = "train",
    image_prefix: Prefix = "",
    kinds: Kinds = "conversation,detail,reasoning",
    expansion_recipe: Recipe = "coco",
    limit: Limit = 0,
    seed: Seed = 0,
    blocklist_uri: Blocklist = "",
    max_bad_rows: BadRows = 0.01,
    prices: Prices = "",
) -> None:
    """Read batch answers into the ledger; `llava expand` with the same settings then builds the rows."""
    from llava.expansion.batch_files import import_batches
    from llava.expansion.job import split_names
    from llava.expansion.ledger import Ledger
    from llava.expansion.prices import FREE, load_prices
    from llava.expansion.teaching import form_check

    job = _job(
        annotations_uri,
        split,
        image_prefix,
        kinds,
        expansion_recipe,
        teacher_model,
        limit,
        seed,
        blocklist_uri,
        max_bad_rows,
    )
    price = load_prices(prices).find(job.model) or FREE
    ledger = Ledger(ledger_uri)
    try:
        found = import_batches(split_names(answers), ledger, job.requests(), form_check(job.recipe), price)
        missing = sum(1 for request in job.requests() if request.id not in ledger)
    finally:
        ledger.close()
    typer.echo(
        f"{found.answered:,} answered, {found.known:,} already known, {found.unusable:,} unusable (ask again), "
        f"{found.dropped:,} dropped, {sum(found.failed.values()):,} failed, {found.foreign:,} of other jobs, "
        f"{found.broken:,} broken lines"
    )
    for fault, number in found.failed.most_common(5):
        typer.echo(f"  {number} x {fault}")
    typer.echo(f"{missing:,} replies still missing")


def _job(
    annotations_uri: str,
    split: str,
    image_prefix: str,
    kinds: str,
    expansion_recipe: str,
    teacher_model: str,
    limit: int,
    seed: int,
    blocklist_uri: str,
    max_bad_rows: float,
) -> Job:
    from llava.expansion.job import open_job
    from llava.expansion.teachers.offline import OfflineTeacher

    if limit < 0:
        raise SettingsError(f"limit: found {limit}; expected 0 or more")
    return open_job(
        annotations_uri=annotations_uri,
        split=split,
        image_prefix=image_prefix,
        kinds=kinds,
        expansion_recipe=expansion_recipe,
        model=teacher_model or OfflineTeacher.model,
        limit=limit,
        seed=seed,
        blocklist_uri=blocklist_uri,
        max_bad_rows=max_bad_rows,
    )


def _show_counts(made: Plan) -> None:
    typer.echo(
        f"{made.pictures:,} pictures, {made.captions:,} captions, {made.boxes:,} boxes; {made.blocked:,} blocked"
    )
    typer.echo(f"tokens {'counted by the tokenizer' if made.exact else 'estimated without a tokenizer'}\n")
    typer.echo(f"{'kind':14} {'requests':>10} {'answered':>10} {'prefix':>9} {'context':>14} {'output':>14}")
    for kind in made.kinds:
        typer.echo(
            f"{kind.kind:14} {kind.requests:>10,} {kind.answered:>10,} {kind.prefix_tokens:>9,} "
            f"{kind.context_tokens:>14,.0f} {kind.output_tokens:>14,.0f}"
        )
    usage = made.usage(cached=True)
    share = usage.cached_input / usage.input if usage.input else 0.0
    typer.echo(f"\ninput {usage.input:,} tokens, {share:.0%} of them the same prefix again; output {usage.output:,}")


def _clock(minutes: float) -> str:
    return f"{int(minutes) // 60} h {int(minutes) % 60} min" if minutes >= 60 else f"{minutes:.1f} min"
