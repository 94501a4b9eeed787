"""`llava plan`: what a recipe needs and costs, before a GPU is paid for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from llava.planning.gpus import GIB

if TYPE_CHECKING:
    from llava.config import Recipe
    from llava.planning.corpora import Corpus
    from llava.planning.gpus import Gpu
    from llava.planning.stage_plan import StagePlan

app = typer.Typer()


@app.command("plan")
def plan(
    recipe: Annotated[str, typer.Option(help="Name of a bundled recipe, or path or URI of one")] = "llava-v1.5-7b",
    gpu: Annotated[
        str, typer.Option(help="GPU: h100, a100-40g, rtx4090, ... as its driver names it; any other with --gpu-memory")
    ] = "h100",
    gpus: Annotated[int, typer.Option(help="How many, over all nodes")] = 8,
    gpu_memory: Annotated[float, typer.Option(help="Usable GiB of one GPU; 0: the table's")] = 0.0,
    gpu_tflops: Annotated[float, typer.Option(help="Its dense bf16 peak in TFLOP/s; 0: the table's, or 100")] = 0.0,
    gpus_per_node: Annotated[int, typer.Option(help="GPUs in a node")] = 8,
    network: Annotated[float, typer.Option(help="Gbit/s of a node to the others")] = 400.0,
    mfu: Annotated[
        float, typer.Option(help="Assumed share of the peak that useful work reaches (LLaVA's own: 0.21-0.29)")
    ] = 0.4,
    price: Annotated[
        float | None, typer.Option(help="US dollars an hour and GPU; default: a round figure of the table")
    ] = None,
    overrides: Annotated[str, typer.Option(help='Recipe fields as JSON: {"finetune.pack_tokens": 4096}')] = "",
    pretrain_data: Annotated[
        str, typer.Option(help="Rows to measure with the recipe's tokenizer instead of assumed ones")
    ] = "",
    finetune_data: Annotated[str, typer.Option(help="The same for stage 2")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="All figures as JSON")] = False,
) -> None:
    """Memory by part and ZeRO stage, the pack that fits, steps, FLOPs, hours and cost of a recipe on given GPUs.

    Where a stage does not fit, what would, cheapest first; exit status 1 where nothing on these GPUs would.
    """
    from llava.config import load_recipe
    from llava.planning.corpora import default_corpus
    from llava.planning.gpus import gpu_named
    from llava.planning.stage_plan import check_arguments, plan_stage, shape_of

    device = gpu_named(gpu, memory_gib=gpu_memory, peak_tflops=gpu_tflops)
    dollars = device.price if price is None else price
    check_arguments(gpus, mfu, dollars, per_node=gpus_per_node, network=network)
    links = {"per_node": gpus_per_node, "network": network * 1e9 / 8}
    loaded = load_recipe(recipe, overrides)
    shape = shape_of(loaded.model)
    plans = []
    for stage, data in (("pretrain", pretrain_data), ("finetune", finetune_data)):
        corpus = _measured(loaded, stage, data) if data else default_corpus(loaded.name, stage)
        plans.append(plan_stage(loaded, stage, shape, corpus, gpu=device, gpus=gpus, mfu=mfu, price=dollars, **links))  # type: ignore[arg-type]
    hopeless = [p.stage for p in plans if not p.fits and not any(remedy.here for remedy in p.remedies)]
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "recipe": loaded.name,
                    "gpu": device.name,
                    "gpus": gpus,
                    "mfu": mfu,
                    "price": dollars,
                    "stages": [p.to_dict() for p in plans],
                },
                indent=2,
            )
        )
    else:
        _show(loaded, plans, device, gpus, mfu, dollars)
    if hopeless:
        raise typer.Exit(1)


def _measured(recipe: Recipe, stage: str, uri: str) -> Corpus:
    from llava.planning.measuring import measure

    corpus, problems = measure(recipe, stage, uri)
    if problems:
        rows = "row" if len(problems) == 1 else "rows"
        typer.echo(f"note: {uri}: {len(problems)} {rows} cannot be used, the first: {problems[0]}", err=True)
    return corpus


def _show(recipe: Recipe, plans: list[StagePlan], gpu: Gpu, gpus: int, mfu: float, price: float) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    peak = f"{gpu.memory / GIB:.1f} GiB, {gpu.peak_bf16 / 1e12:.0f} TFLOP/s bf16"
    console.print(f"[bold]{escape(recipe.name)}[/bold] on {gpus} x {gpu.name} ({peak})")
    console.print(f"Assumed: {mfu:.0%} of the peak as useful work; {price:.2f} USD an hour and GPU.")
    for plan in plans:
        corpus = plan.corpus
        lengths = "measured" if corpus.measured else "estimated"
        title = f"{corpus.name}, {corpus.rows:,} rows, {plan.tokens_per_row:.0f} tokens a row"
        console.print(f"\n[bold]{plan.stage}[/bold]: {escape(title)} ({lengths} text lengths)")
        figures = Table(show_header=False, box=None, padding=(0, 2))
        for name, value in _figures(plan, gpu):
            figures.add_row(name, value)
        console.print(figures)
        table = Table("GiB on each GPU", *(f"ZeRO {zero}" for zero in plan.by_zero), title=None)
        for part in ("weights", "gradients", "optimizer", "buffers", "activations", "logits", "reserve", "total"):
            table.add_row(part, *(f"{getattr(need, part) / GIB:.1f}" for need in plan.by_zero.values()))
        console.print(table)
    hours, cost = sum(p.hours for p in plans), sum(p.cost for p in plans)
    console.print(f"\nBoth stages: {hours:.1f} h, {cost:,.0f} USD, without evaluation, start-up and checkpoints.")
    for plan in plans:
        for warning in plan.warnings:
            console.print(f"[yellow]warning[/yellow] {warning}")


def _figures(plan: StagePlan, gpu: Gpu) -> list[tuple[str, str]]:
    fill = plan.fill
    flops, verdict = plan.flops, "fits" if plan.fits else "DOES NOT FIT"
    again = f", and {flops.recomputed / flops.total:.0%} more for recomputed activations" if flops.recomputed else ""
    need = f"{plan.memory.total / GIB:.1f} of {gpu.memory / GIB:.1f} GiB at {plan.micro_tokens:,} tokens"
    return [
        ("trained parameters", f"{plan.trained_parameters / 1e6:,.1f} M"),
        ("memory", f"{need}: {verdict}"),
        ("largest pack that fits", f"{plan.largest_pack:,} tokens"),
        ("packs", f"{fill.share:.0%} full, {fill.rows:.1f} rows each, {fill.micro_steps:.1f} micro-steps a step"),
        ("optimiser steps", f"{plan.steps:,}"),
        ("model FLOPs", f"{flops.total:.3g}{again}"),
        ("time", f"{plan.hours:.1f} h, {plan.communication_hours:.1f} h of it communication that nothing hides"),
        (
            "of a node",
            f"{plan.host.memory / GIB:.0f} GiB host memory, {plan.host.scratch / GIB:.0f} GiB scratch, "
            f"{plan.host.shm / GIB:.0f} GiB /dev/shm",
        ),
        ("cost", f"{plan.cost:,.0f} USD"),
    ]
