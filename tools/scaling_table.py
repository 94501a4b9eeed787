"""The table of docs/scaling.md: what fits on which GPUs, or what to change so that it does, and what a node needs.

    python -m tools.scaling_table            print it
    python -m tools.scaling_table --write    put it into docs/scaling.md

Everything in it is planned (`llava.planning`), by the bundled recipes at 40 % MFU. A test holds the page against it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llava.config import Recipe, TrainRecipe, load_recipe
from llava.planning.corpora import default_corpus
from llava.planning.flops import Stage
from llava.planning.gpus import GIB, gpu_named
from llava.planning.host import host
from llava.planning.stage_plan import StagePlan, plan_stage, shape_of

PAGE = Path(__file__).parents[1] / "docs/scaling.md"
BEGIN, END = "<!-- begin: python -m tools.scaling_table --write -->", "<!-- end -->"
GPUS = {"24 GB": "rtx4090", "40 GB": "a100-40g", "80 GB": "h100", "141 GB": "h200"}
COUNTS = (1, 2, 4, 8)
CASES: tuple[tuple[str, str, Stage], ...] = (
    ("7B, stage 1", "llava-v1.5-7b", "pretrain"),
    ("7B, stage 2, LoRA", "llava-v1.5-7b-lora", "finetune"),
    ("7B, stage 2, full", "llava-v1.5-7b", "finetune"),
    ("13B, stage 1", "llava-v1.5-13b", "pretrain"),
    ("13B, stage 2, LoRA", "llava-v1.5-13b-lora", "finetune"),
    ("13B, stage 2, full", "llava-v1.5-13b", "finetune"),
)
# Liu et al. 2023 and the published scripts: 8 A100 of 80 GB (7B, stage 2: of 40 GB).
PUBLISHED = (
    ("7B, stage 1", "llava-v1.5-7b", "pretrain", "a100", 3.5),
    ("7B, stage 2, full", "llava-v1.5-7b", "finetune", "a100-40g", 10.0),
    ("13B, stage 1", "llava-v1.5-13b", "pretrain", "a100", 5.5),
    ("13B, stage 2, full", "llava-v1.5-13b", "finetune", "a100", 20.0),
)
_SHORT = {
    "activation_checkpoint_every_n_layers": "checkpoint every {} layers",
    "pack_tokens": "packs of {}",
    "zero_stage": "ZeRO {}",
    "offload_optimizer": "optimiser on the host",
    "offload_parameters": "weights on the host",
    "gpus": "{} GPUs",
}


def plan(recipe: Recipe, stage: Stage, gpu: str, count: int, mfu: float = 0.4) -> StagePlan:
    """One stage of a bundled recipe."""
    corpus = default_corpus(recipe.name, stage)
    device = gpu_named(gpu)
    return plan_stage(
        recipe, stage, shape_of(recipe.model), corpus, gpu=device, gpus=count, mfu=mfu, price=device.price
    )


def remedied(recipe: Recipe, stage: Stage, gpu: str, count: int) -> tuple[StagePlan, str]:
    """The plan that fits, and what it changes: a way that trains the same parameters before one that does not, of these
    the first in the plan's own order that takes hardly longer than the fastest.
    """
    first = plan(recipe, stage, gpu, count)
    if first.fits:
        return first, ""
    tried: list[tuple[StagePlan, str, bool]] = []
    for remedy in first.remedies:
        if remedy.here:
            changes: dict[str, Any] = dict(remedy.fields)
            train: TrainRecipe = getattr(recipe, stage)
            changed = recipe.model_copy(update={stage: train.model_copy(update=changes)})
            tried.append((plan(changed, stage, gpu, count), _short(changes), "lora" in changes and not train.lora))
    if not tried:
        (more,) = first.remedies[-1:] or (None,)
        return first, f"no: {_short(more.fields)}" if more else "no"
    ways = [way for way in tried if not way[2]] or tried
    fastest = min(way[0].hours for way in ways)
    return next((way[0], way[1]) for way in ways if way[0].hours < 1.05 * fastest)


def _short(fields: dict[str, Any]) -> str:
    words = []
    for name, value in fields.items():
        if name == "lora":
            words.append("QLoRA" if value.quantize_4bit else "LoRA")
        elif name == "activation_checkpoint_every_n_layers" and value == 1:
            words.append("checkpoint every layer")
        elif value is not False and not (name == "zero_stage" and "lora" in fields):
            words.append(_SHORT[name].format(f"{value:,}" if name == "pack_tokens" else value))
    return ", ".join(words)


def lines() -> Iterator[str]:
    """The page's part."""
    yield "| | GPU | " + " | ".join(f"{count} GPU{'s' if count > 1 else ''}" for count in COUNTS) + " |"
    yield "|---|---|" + "---|" * len(COUNTS)
    for title, name, stage in CASES:
        recipe = load_recipe(name)
        for size, gpu in GPUS.items():
            cells = []
            for count in COUNTS:
                done, change = remedied(recipe, stage, gpu, count)
                cells.append(
                    change if change.startswith("no") else f"{done.hours:.1f} h" + f"; {change}" * bool(change)
                )
            yield f"| {title} | {size} | " + " | ".join(cells) + " |"
            title = ""
    yield ""
    yield "What a node needs beside its GPUs, in GiB of host memory / scratch (`/dev/shm`: 2 to 4 GiB):"
    yield ""
    yield "| | " + " | ".join(f"{count} GPU{'s' if count > 1 else ''}" for count in COUNTS) + " |"
    yield "|---|" + "---|" * len(COUNTS)
    for title, name, stage in CASES:
        recipe = load_recipe(name)
        train: TrainRecipe = getattr(recipe, stage)
        needs = [host(shape_of(recipe.model), stage, train, gpus=count, per_node=count) for count in COUNTS]
        cells = [f"{need.memory / GIB:.0f} / {need.scratch / GIB:.0f}" for need in needs]
        yield f"| {title} | " + " | ".join(cells) + " |"
    yield ""
    yield "Beside the published hours, on 8 A100; ours are planned:"
    yield ""
    yield "| | GPUs | published | ours at 40 % MFU | at the published runs' MFU (29 % stage 1, 23 % stage 2) |"
    yield "|---|---|---|---|---|"
    for title, name, stage_name, gpu, hours in PUBLISHED:
        stage2: Stage = "pretrain" if stage_name == "pretrain" else "finetune"
        recipe = load_recipe(name)
        ours, change = remedied(recipe, stage2, gpu, 8)
        train = getattr(recipe, stage2)
        theirs = ours.hours - ours.communication_hours
        theirs = theirs * 0.4 / (0.29 if stage2 == "pretrain" else 0.23) + ours.communication_hours
        what = f" ({change})" if change else ""
        yield f"| {title} | 8 x {gpu} | {hours:g} h | {ours.hours:.1f} h{what} | {theirs:.1f} h |"


def page() -> str:
    """docs/scaling.md with the table as it should be."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n" + "\n".join(lines()) + f"\n{END}{after}"


def main(arguments: list[str]) -> None:
    """Command line."""
    if arguments == ["--write"]:
        PAGE.write_text(page())
    else:
        print("\n".join(lines()))


if __name__ == "__main__":
    main(sys.argv[1:])
