"""`llava merge`: a checkpoint of a run, adapters or whole weights, as a plain hub directory.

A finished stage 2 hands over such a directory by itself. This is for a run that was stopped, for an earlier step of
one, and for adapters on top of 4-bit weights: base models by the recipe, what was trained from the checkpoint.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

app = typer.Typer()


@app.command("merge")
def merge(
    checkpoints: Annotated[str, typer.Option(help="The run's checkpoints folder: path or URI")],
    out: Annotated[str, typer.Option(help="Where the model goes: directory or URI")],
    recipe: Annotated[str, typer.Option(help="The recipe of the run: name, path or URI")],
    overrides: Annotated[str, typer.Option(help="The run's overrides, as JSON")] = "",
    stage: Annotated[str, typer.Option(help="finetune: a model; pretrain: a projector")] = "finetune",
    step: Annotated[int, typer.Option(help="Which checkpoint; 0: the newest")] = 0,
    dtype: Annotated[str, typer.Option(help="Of the weights: float32, bfloat16, float16; empty: the recipe's")] = "",
) -> None:
    """Write a run's checkpoint as a hub directory that loads with transformers alone; LoRA is merged."""
    from llava.config import load_recipe
    from llava.errors import SettingsError

    if stage not in ("pretrain", "finetune"):
        raise SettingsError(f"stage: found {stage!r}; expected finetune or pretrain")
    if dtype not in ("", "float32", "bfloat16", "float16"):
        raise SettingsError(f"dtype: found {dtype!r}; expected float32, bfloat16 or float16")
    taken = write_merged(checkpoints, out, load_recipe(recipe, overrides), stage, step=step, dtype=dtype)
    typer.echo(f"checkpoint of step {taken} of {checkpoints} written to {out}")


def write_merged(checkpoints_uri: str, out: str, recipe: Any, stage: Any, *, step: int = 0, dtype: str = "") -> int:
    """Build the recipe's model, put the checkpoint's weights into it, save it merged; returns the step taken.

    Raises:
        SettingsError: no checkpoint, or one of another recipe or stage.
        StorageError: the checkpoint is damaged.
    """

    import torch

    from llava.errors import SettingsError
    from llava.model.saving import save_model, save_projector
    from llava.training import checkpoints
    from llava.training.job import Job
    from llava.training.modelling import build_model_for, build_processor_for
    from llava.training.state import RunState, mathematics

    steps = checkpoints.list_steps(checkpoints_uri)
    if not steps or (step and step not in steps):
        there = ", ".join(map(str, steps)) or "none"
        raise SettingsError(
            f"checkpoints: {checkpoints_uri}: no checkpoint of step {step or 'any'}; there are: {there}"
        )
    step = step or steps[-1]
    job = Job(
        stage=stage,
        recipe=recipe,
        data_uri="",
        images_uri="",
        output_uri=out,
        checkpoints_uri=checkpoints_uri,
        result_uri="",
        failure_uri="",
    )
    manifest = checkpoints.read_manifest(checkpoints_uri, step)
    identity = RunState.model_validate(manifest.state).identity
    if identity.stage != stage:
        is_of = f"{checkpoints_uri} is of stage {identity.stage}"
        raise SettingsError(f"checkpoints: {is_of}; pass --stage {identity.stage}")
    wanted = mathematics(job.train)
    other = {name for name in wanted.keys() | identity.recipe.keys() if wanted.get(name) != identity.recipe.get(name)}
    for name in sorted(other & {"lora", "precision", "template", "image_aspect_ratio", "vision_tower_learning_rate"}):
        raise SettingsError(
            f"recipe: {recipe.name}: {stage}.{name} is {json.dumps(wanted.get(name))}, but the checkpoint was "
            f"trained with {json.dumps(identity.recipe.get(name))}; give the run's own recipe and overrides"
        )
    processor = build_processor_for(job)
    model = build_model_for(job, processor, torch.device("cpu"))
    masters = _masters(model, manifest)
    checkpoints.restore(masters, checkpoints_uri, manifest)
    with torch.no_grad():
        by_name = {fragment.name: fragment.master.view(fragment.shape) for fragment in masters}
        for name, parameter in model.named_parameters():
            if name in by_name:
                parameter.copy_(by_name[name])
    if stage == "pretrain":
        save_projector(model, out)
    else:
        save_model(model, processor, out, dtype=getattr(torch, dtype) if dtype else None)
    return step


def _masters(model: Any, manifest: Any) -> list[Any]:
    """Empty whole fragments of everything trained, for `checkpoints.restore` to fill."""
    import torch

    from llava.errors import SettingsError
    from llava.training.fragments import Fragment

    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    saved = {piece.name for shard in manifest.shards for piece in shard.slices}
    unknown = sorted(saved - trained.keys())
    if unknown:
        raise SettingsError(
            f"checkpoints: {len(unknown)} parameters that this recipe does not train, the first {unknown[0]!r}; "
            "give the run's own recipe and overrides"
        )
    return [
        Fragment(
            name=name,
            shape=tuple(parameter.shape),
            start=0,
            numel=parameter.numel(),
            master=torch.empty(parameter.numel(), dtype=torch.float32),
            moments={},
            shared=True,
        )
        for name, parameter in trained.items()
    ]
