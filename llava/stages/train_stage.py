"""What pretrain and finetune have in common: check the recipe and the rows, run the ranks, tell what came out."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from llava import storage
from llava.config import Recipe, load_recipe
from llava.errors import SettingsError
from llava.manifest import Manifest, write_manifest
from llava.parsing import Malformed, parse_json
from llava.stages import restarts, spending
from llava.stages.stage import StageResult, StageSettings

if TYPE_CHECKING:
    from llava.training.job import Job, Result, StageName


class TrainSettings(StageSettings):
    """Settings of both training stages."""

    recipe: str = Field(
        "tiny", description="Recipe: a bundled name such as llava-v1.5-7b, or path or URI of a YAML file"
    )
    overrides: str = Field("", description='Recipe fields to change, as JSON: {"finetune.max_steps": 10}')
    images_uri: str = Field(
        "",
        description="Folder or s3:// prefix that the rows' image paths are relative to; after commas, further places "
        "that absolute paths and URIs in rows may lead to",
    )
    vision_tower: str = Field("", description="Vision tower instead of the recipe's: hub id, directory or s3:// URI")
    language_model: str = Field(
        "", description="Language model instead of the recipe's: hub id, directory or s3:// URI"
    )
    processes: str = Field(
        "auto", description="Training processes on this node: auto is one a GPU (one on CPU), or a number"
    )
    threads_per_process: int = Field(0, ge=0, description="CPU threads of each process; 0 leaves the choice to torch")
    profile: int = Field(
        0, ge=0, description="Steps to profile: a trace below the checkpoints, a table in the report; 0: none"
    )
    tracking: str = Field(
        "",
        description="Trackers that get the curves too: tensorboard, mlflow, wandb, separated by commas, each with a "
        "place if need be: mlflow=http://mlflow:5000; empty: none",
    )
    resume_uri: str = Field(
        "",
        description="Checkpoints of an earlier, unfinished run to resume from; empty: a new run, or on a retry its own",
    )
    train_job: str = Field(
        "", description='With nodes above 1 in the recipe, what each node gets, as JSON: {"accelerators": 8}'
    )


def read_recipe(settings: TrainSettings) -> Recipe:
    """The recipe with the settings' overrides.

    Raises:
        SettingsError: naming field, value and what would be right.
    """
    try:
        changes: dict[str, Any] = parse_json(settings.overrides) if settings.overrides.strip() else {}
    except Malformed as error:
        raise SettingsError(
            f'overrides: {error}: {settings.overrides!r}; expected e.g. {{"finetune.max_steps": 10}}'
        ) from error
    if not isinstance(changes, dict):
        raise SettingsError(f"overrides: found {settings.overrides!r}; expected a JSON object of dotted fields")
    for field in ("vision_tower", "language_model"):
        if value := getattr(settings, field):
            changes[f"model.{field}"] = value
    return load_recipe(settings.recipe, changes)


def run_training(
    stage: Literal["pretrain", "finetune"],
    settings: TrainSettings,
    *,
    data_uri: str,
    projector_uri: str,
    output_uri: str,
    checkpoints_uri: str,
    report_uri: str,
) -> StageResult:
    """Run one training stage from its settings to its report.

    Raises:
        UserError: a setting, the recipe, the data or a place is wrong, or the run was stopped; nothing is half-written.
    """
    from llava.multinode.train_on_nodes import read_node_settings, train_on_nodes
    from llava.tracking.destinations import read_destinations, require_libraries
    from llava.training import launch, reporting
    from llava.training.job import Job

    began = time.monotonic()
    recipe = read_recipe(settings)
    section = getattr(recipe, stage)
    read_node_settings(settings.train_job)
    require_libraries(read_destinations(settings.tracking))
    # On several nodes this pod only follows; its own GPUs say nothing of theirs.
    processes = launch.process_count(settings.processes) if section.nodes == 1 else 1
    if section.global_batch_size < processes:
        raise SettingsError(
            f"{stage}.global_batch_size: found {section.global_batch_size}; with {processes} processes "
            f"expected at least {processes}"
        )
    with tempfile.TemporaryDirectory(prefix=f"llava-{stage}-") as scratch:
        job = Job(
            stage=stage,
            run=os.environ.get("LLAVA_RUN", ""),
            recipe=recipe,
            data_uri=data_uri,
            images_uri=settings.images_uri,
            projector_uri=projector_uri,
            output_uri=output_uri,
            checkpoints_uri=checkpoints_uri,
            resume_uri=settings.resume_uri,
            result_uri=f"{scratch}/result.json",
            failure_uri=f"{scratch}/failures",
            threads_per_process=settings.threads_per_process,
            profile_steps=settings.profile,
            tracking=settings.tracking,
        )
        result = (
            train_on_nodes(job, settings.train_job, settings.processes)
            if section.nodes > 1
            else launch.launch(job, processes)
        )
    metrics = _metrics(result, time.monotonic() - began)
    again = [f"Started again in this pod: {reason}" for reason in restarts.reasons_so_far()]
    result = result.model_copy(update={"warnings": [*result.warnings, *again]})
    if result.problems:
        reporting.write_problems(storage.join(checkpoints_uri, "rows-left-out.jsonl"), result.problems)
    _write_manifest(job, settings, result, metrics)
    reporting.build_report(job, result, metrics).write(report_uri)
    return StageResult(metrics=metrics, metadata={_output_name(stage): {"recipe": recipe.name, "steps": result.steps}})


def _metrics(result: Result, seconds: float) -> dict[str, float]:
    metrics = {**result.numbers, "seconds": seconds, "steps": float(result.steps)}
    if not result.device.endswith("CPU threads"):  # one rank an accelerator, on all nodes together
        metrics |= spending.spent(result.world_size, seconds)
    if result.resumed_from:
        metrics["resumed_from_step"] = float(result.resumed_from)
    if result.validations:
        metrics["validation_loss"] = result.validations[-1].loss
    return metrics


def _output_name(stage: StageName) -> str:
    return "projector" if stage == "pretrain" else "model"


def _write_manifest(job: Job, settings: TrainSettings, result: Result, metrics: dict[str, float]) -> None:
    parents = {"data": job.data_uri}
    if job.projector_uri:
        parents["projector"] = job.projector_uri
    serving = {}
    if job.stage == "finetune":
        tower = storage.read_json(storage.join(job.output_uri, "config.json"))["vision_config"]["model_type"]
        serving = {"serving": serving_note(job.recipe.model.projector, tower)}
    manifest = Manifest(
        kind=_output_name(job.stage),
        stage=job.stage,
        settings=settings.model_dump(mode="json"),
        recipe=job.recipe.model_dump(mode="json"),
        data_hash=result.data_sha256,
        parents=parents,
        numbers=metrics,
        files=_hashes(job.output_uri),
        extra={
            "vision_tower": job.recipe.model.vision_tower,
            "language_model": job.recipe.model.language_model,
            "deepspeed": result.deepspeed_config,
            "world_size": result.world_size,
            "device": result.device,
            "warnings": result.warnings,
            **serving,
        },
    )
    write_manifest(job.output_uri, manifest)


def serving_note(projector: str, tower: str) -> str:
    """Which engines load a model with this projector and family of tower, as of vLLM 0.33 and SGLang 0.5.23."""
    if projector in ("linear", "identity", "mlp1x_gelu"):
        return "transformers only: the projector's activation is `linear`, which vLLM's registry of activations lacks"
    if projector != "mlp2x_gelu":
        return "transformers only, with trust_remote_code: the projector has more layers than the stock class"
    if tower == "dinov2":
        return "transformers only: vLLM's LLaVA takes CLIP and SigLIP towers, no DINOv2"
    if tower == "siglip_vision_model":
        return "transformers and vLLM"
    return (
        "transformers and vLLM; SGLang registers no CLIP vision model, so that no LLaVA with a CLIP tower loads there"
    )


def _hashes(uri: str) -> dict[str, str]:
    """SHA-256 of every file below `uri` except the manifest itself; streamed, a weight file does not fit in memory."""
    from llava.manifest import sha256_of

    hashes = {}
    for item in storage.list_files(uri):
        if item.path == "manifest.json":
            continue
        with tempfile.TemporaryDirectory(prefix="llava-hash-") as scratch:
            hashes[item.path], _ = sha256_of(storage.as_local(storage.join(uri, item.path), Path(scratch)))
    return hashes
