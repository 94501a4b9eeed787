"""`llava expand plan`, `export-batch`, `import-batch`: what belongs to the expansion stage but is not a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llava.cli.stages import with_settings
from llava.stages.expand_settings import Settings, job_of

if TYPE_CHECKING:
    from llava.expansion.asking.ledger import Ledger
    from llava.expansion.estimate import Plan
    from llava.expansion.job import Job

app = typer.Typer()

# What decides which requests there are: the same flags with the same meaning as in `llava expand`.
_JOB = (
    "annotations_uri", "split", "image_prefix", "kinds", "expansion_recipe", "teacher_model", "limit", "seed",
    "blocklist_uri", "max_bad_rows", "extra_body", "ledger_uri", "images_uri", "image_longest_side", "image_quality",
    "image_url_prefix",
)  # fmt: skip


@app.command("plan")
@with_settings(Settings, "llava expand plan", *_JOB, "prices", "requests_per_minute", "tokens_per_minute")
def plan(
    settings: Settings,
    tokenizer: Annotated[
        str, typer.Option(help="tokenizer.json or hub directory; empty: the price table's, or an estimate")
    ] = "",
    local_tokens_per_second: Annotated[
        float, typer.Option(help="Output rate of a teacher of your own; 0: not asked")
    ] = 0.0,
    local_price_per_hour: Annotated[float, typer.Option(help="What that teacher's machine costs an hour")] = 0.0,
) -> None:
    """Counts, tokens, cost and time of an expansion, before anything is spent."""
    from llava.expansion.asking.prices import FREE, load_prices
    from llava.expansion.asking.token_counts import TokenCounter
    from llava.expansion.estimate import make_plan

    job = _job(settings)
    table = load_prices(settings.prices)
    price = table.find(job.model)
    counter = TokenCounter(tokenizer or (price.tokenizer if price else ""))
    ledger = _ledger(settings.ledger_uri, "plan", reading=True) if settings.ledger_uri else None
    try:
        made = make_plan(job, counter, ledger, price or FREE)
    finally:
        if ledger is not None:
            ledger.close()
    _show_counts(made)
    if price is None:
        typer.echo(f"\nno cost: {table.missing(job.model)}")
    else:
        as_of = f", prices of {table.as_of}" if table.as_of else ""
        typer.echo(f"\ncost in {table.currency} with {job.model}{as_of}")
        for mode, cost in made.costs(price).items():
            typer.echo(f"  {mode:22} {cost:12,.2f}")
    minutes = made.minutes(settings.requests_per_minute, settings.tokens_per_minute)
    if minutes is not None:
        typer.echo(f"\ntime online at these rates: {_clock(minutes)}")
    if local_tokens_per_second:
        hours = made.usage(cached=True).output / local_tokens_per_second / 3600
        machine = f", {hours * local_price_per_hour:,.2f} for the machine" if local_price_per_hour else ""
        typer.echo(
            f"time with your own teacher at {local_tokens_per_second:g} output tokens/s: {_clock(60 * hours)}{machine}"
        )


@app.command("export-batch")
@with_settings(Settings, "llava expand export-batch", *_JOB, required=["teacher_model"])
def export_batch(
    settings: Settings, to: Annotated[str, typer.Option(help="Folder or URI for requests-00000.jsonl, ...")]
) -> None:
    """Write what the ledger lacks as provider batch files (50,000 requests and 200 MB each)."""
    from llava.expansion.asking.batch_files import export_batches
    from llava.expansion.gates.form_check import form_check

    job = _job(settings)
    ledger = _ledger(settings.ledger_uri or f"{to.rstrip('/')}/ledger", "export-batch")
    try:
        written = export_batches(job.requests(), ledger, to, form_check(job.recipe))
    finally:
        ledger.close()
    for uri, requests, size in written:
        typer.echo(f"{uri}  {requests:,} requests  {size / 1e6:,.1f} MB")
    typer.echo(
        f"{sum(requests for _, requests, _ in written):,} requests in {len(written)} files; ids are the ledger's"
    )


@app.command("import-batch")
@with_settings(Settings, "llava expand import-batch", *_JOB, "prices", required=["teacher_model", "ledger_uri"])
def import_batch(
    settings: Settings,
    answers: Annotated[str, typer.Option(help="Answer files of the batch interface or of vLLM, comma-separated")],
) -> None:
    """Read batch answers into the ledger; `llava expand` with the same settings then builds the rows."""
    from llava.expansion.asking.batch_files import import_batches
    from llava.expansion.asking.prices import FREE, load_prices
    from llava.expansion.asking.settled import still_open
    from llava.expansion.gates.form_check import form_check
    from llava.expansion.job import split_names

    job = _job(settings)
    price = load_prices(settings.prices).find(job.model) or FREE
    ledger = _ledger(settings.ledger_uri, "import-batch")
    try:
        found = import_batches(split_names(answers), ledger, job.requests(), form_check(job.recipe), price)
        missing = sum(1 for _ in still_open(job.requests(), ledger, form_check(job.recipe)))
    finally:
        ledger.close()
    typer.echo(
        f"{found.answered:,} answered, {found.known:,} already known, {found.again:,} answered before, "
        f"{found.unusable:,} unusable (ask again), "
        f"{found.dropped:,} dropped, {sum(found.failed.values()):,} failed, {found.foreign:,} of other jobs, "
        f"{found.broken:,} broken lines"
    )
    for fault, number in found.failed.most_common(5):
        typer.echo(f"  {number} x {fault}")
    typer.echo(f"{missing:,} replies still missing")


@app.command("cancel-batch")
def cancel_batch(
    ledger_uri: Annotated[str, typer.Option(help="Ledger of the run whose jobs are cancelled")],
    teacher_endpoint: Annotated[str, typer.Option(help="Base URL; empty: the provider's own")] = "",
    batch_form: Annotated[str, typer.Option(help="openai, anthropic or gemini")] = "openai",
) -> None:
    """Cancel the ledger's unfinished batch jobs; a later `--mode batch` run collects what they had answered."""
    from llava.expansion.asking.batch_run import cancel_all
    from llava.expansion.teachers.batch_interfaces import open_batches

    ledger = _ledger(ledger_uri, "cancel-batch", reading=True)
    try:
        number = cancel_all(open_batches(batch_form, teacher_endpoint, 60.0), ledger)
    finally:
        ledger.close()
    typer.echo(f"{number} batch jobs are being cancelled")


def _job(settings: Settings) -> Job:
    from llava.expansion.teachers.offline import OfflineTeacher

    job = job_of(settings, settings.teacher_model or OfflineTeacher.model)
    for warning in job.warnings:
        typer.echo(f"WARNING: {warning}", err=True)
    return job


def _ledger(uri: str, command: str, *, reading: bool = False) -> Ledger:
    from llava.expansion.asking.ledger import Ledger

    return Ledger(uri, f"llava expand {command}", lambda text: typer.echo(text, err=True), reading=reading)


def _show_counts(made: Plan) -> None:
    typer.echo(f"{made.images:,} images, {made.captions:,} captions, {made.boxes:,} boxes; {made.blocked:,} blocked")
    typer.echo(f"tokens {'counted by the tokenizer' if made.exact else 'estimated without a tokenizer'}\n")
    typer.echo(
        f"{'kind':14} {'requests':>10} {'answered':>10} {'prefix':>9} {'context':>14} {'images':>14} {'output':>14}"
    )
    for kind in made.kinds:
        typer.echo(
            f"{kind.kind:14} {kind.requests:>10,} {kind.answered:>10,} {kind.prefix_tokens:>9,} "
            f"{kind.context_tokens:>14,.0f} {kind.image_tokens:>14,.0f} {kind.output_tokens:>14,.0f}"
        )
    usage = made.usage(cached=True)
    share = usage.cached_input / usage.input if usage.input else 0.0
    typer.echo(f"\ninput {usage.input:,} tokens, {share:.0%} of them the same prefix again; output {usage.output:,}")


def _clock(minutes: float) -> str:
    return f"{int(minutes) // 60} h {int(minutes) % 60} min" if minutes >= 60 else f"{minutes:.1f} min"
