"""`llava evaluate checkpoints`: every checkpoint of a run answers a benchmark; its history as lines and differences.

Each checkpoint in turn becomes a hub directory, is asked as the stage asks, and is removed again, so the disk holds one
model at a time. What a step has answered stays below `OUT/step-00000123`; the same command asks only new ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from llava import storage
from llava.cli.stages import with_settings
from llava.errors import SettingsError
from llava.stages.evaluate import Inputs, Outputs, Settings, run

_SETTINGS = ("benchmark", "questions_uri", "images_uri", "profile", "batch_size", "dtype", "processes")
_MORE = ("max_new_tokens", "limit", "max_bad_rows")
NOTE = "checkpoint.json"


@with_settings(Settings, "llava evaluate checkpoints", *_SETTINGS, *_MORE)
def evaluate_checkpoints(
    settings: Settings,
    checkpoints: Annotated[str, typer.Option(help="The run's checkpoints folder: path or URI")],
    recipe: Annotated[str, typer.Option(help="The recipe of the run: name, path or URI")],
    out: Annotated[str, typer.Option(help="Folder or URI for each step's answers and the history")],
    overrides: Annotated[str, typer.Option(help="The run's overrides, as JSON")] = "",
    steps: Annotated[str, typer.Option(help="Which, separated by commas; empty: all that are there")] = "",
    scratch: Annotated[str, typer.Option(help="Folder for the model that answers; empty: a temporary one")] = "",
) -> None:  # fmt: skip
    """Evaluate a run's checkpoints, and show how the figures changed from one to the next"""
    from llava.config import load_recipe
    from llava.evaluation.benchmarks import get_benchmark
    from llava.evaluation.suite import places, suite_of
    from llava.training.checkpoints import folder_name, list_steps

    chosen = _chosen(steps, list_steps(checkpoints), checkpoints)
    trained = load_recipe(recipe, overrides)
    for column, questions, _ in places(suite_of(settings.benchmark), settings.questions_uri, settings.images_uri):
        get_benchmark(column.benchmark).read(questions)  # what is wrong with them is told before a model is made
    asked = settings.model_copy(update={"blank_baseline": False})
    for step in chosen:
        folder = storage.join(out, folder_name(step))
        note = _note(checkpoints, step, asked)
        if _known(folder) == note:
            typer.echo(f"step {step}: answered already, {folder}")
            continue
        with tempfile.TemporaryDirectory(prefix="llava-checkpoint-", dir=scratch or None) as place:
            model = storage.join(place, folder_name(step))
            _as_model(checkpoints, model, trained, step)
            outputs = Outputs(
                predictions=storage.join(folder, "predictions"),
                report=storage.join(folder, "report.html"),
                metrics=storage.join(folder, "metrics.json"),
            )
            metrics = run(asked, Inputs(model=model, projector=None), outputs).metrics
            storage.write_json(outputs.metrics, metrics)
        storage.write_json(storage.join(folder, NOTE), note)
    if len(chosen) > 1:
        _history([(step, storage.join(out, folder_name(step), "predictions")) for step in chosen], settings, out)


def _chosen(wanted: str, there: Sequence[int], uri: str) -> list[int]:
    names = [part.strip() for part in wanted.split(",") if part.strip()]
    known = {str(step): step for step in there}
    unknown = [name for name in names if name not in known]
    if not there:
        raise SettingsError(f"checkpoints: {uri}: none there; expected the folder that a training stage wrote")
    if unknown:
        raise SettingsError(f"steps: {uri}: no checkpoint of step {', '.join(unknown)}; there are: {', '.join(known)}")
    return sorted({known[name] for name in names}) if names else list(there)


def _note(checkpoints: str, step: int, settings: Settings) -> dict[str, Any]:
    """What a step's answers are of: equal to the one on disk, nothing needs to be asked."""
    from llava.manifest import sha256
    from llava.training.checkpoints import read_manifest

    made_of = sha256(read_manifest(checkpoints, step).model_dump_json().encode())  # its files' hashes are in it
    return {"checkpoint": made_of, "step": step, "settings": settings.model_dump(mode="json")}


def _known(folder: str) -> object:
    place = storage.join(folder, NOTE)
    return storage.read_json(place) if storage.exists(place) else None


def _as_model(checkpoints: str, model: str, recipe: Any, step: int) -> None:
    from llava.cli.merge import write_merged
    from llava.manifest import Manifest, write_manifest
    from llava.training.checkpoints import folder_name

    write_merged(checkpoints, model, recipe, "finetune", step=step)
    parents = {"checkpoint": storage.join(checkpoints, folder_name(step))}
    write_manifest(model, Manifest(kind="model", stage="merge", parents=parents))


def _history(places: Sequence[tuple[int, str]], settings: Settings, out: str) -> None:
    from llava.cli.compare import show
    from llava.evaluation import comparing

    finished = [item for step, place in places for item in comparing.open_finished(f"{step}={place}", "finetuned")]
    show(comparing.compare(finished, settings.profile, successive=True), storage.join(out, "history"), history=True)
