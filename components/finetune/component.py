"""The Kubeflow component of the finetune stage.

Written from `llava/stages/finetune.py` by `python -m components.sync`: change it there.
"""

# ruff: noqa: UP045
from typing import Optional

from kfp import dsl

from components.images import image_of


@dsl.container_component
def finetune(
    model: dsl.Output[dsl.Model],
    checkpoints: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    recipe: str = "tiny",
    overrides: str = "",
    images_uri: str = "",
    vision_tower: str = "",
    language_model: str = "",
    processes: str = "auto",
    threads_per_process: int = 0,
    profile: int = 0,
    tracking: str = "",
    resume_uri: str = "",
    train_job: str = "",
    data: Optional[dsl.Input[dsl.Dataset]] = None,
    data_uri: str = "",
    projector: Optional[dsl.Input[dsl.Model]] = None,
    projector_uri: str = "",
) -> dsl.ContainerSpec:
    """Stage 2: tune projector W and language model φ on instructions; the vision tower stays

    Args:
        recipe: Recipe: a bundled name such as llava-v1.5-7b, or path or URI of a YAML file
        overrides: Recipe fields to change, as JSON: {"finetune.max_steps": 10}
        images_uri: Folder or s3:// prefix that the rows' image paths are relative to; after commas, further places that absolute paths and URIs in rows may lead to
        vision_tower: Vision tower instead of the recipe's: hub id, directory or s3:// URI
        language_model: Language model instead of the recipe's: hub id, directory or s3:// URI
        processes: Training processes on this node: auto is one a GPU (one on CPU), or a number
        threads_per_process: CPU threads of each process; 0 leaves the choice to torch
        profile: Steps to profile: a trace below the checkpoints, a table in the report; 0: none
        tracking: Trackers that get the curves too: tensorboard, mlflow, wandb, separated by commas, each with a place if need be: mlflow=http://mlflow:5000; empty: none
        resume_uri: Checkpoints of an earlier, unfinished run to resume from; empty: a new run, or on a retry its own
        train_job: With nodes above 1 in the recipe, what each node gets, as JSON: {"accelerators": 8}
        data: Instruction rows: LLaVA JSON, such as llava_v1_5_mix665k.json
        data_uri: data by URI, from any bucket, instead of as an artifact
        projector: The projector that pretrain wrote
        projector_uri: projector by URI, from any bucket, instead of as an artifact
        model: The trained model as a hub directory, with its processor and a manifest
        checkpoints: Checkpoints to resume from after an interruption
        report: Curves, sample answers, rows left out
        metrics: Final loss, speed, seconds
    """
    return dsl.ContainerSpec(
        image=image_of("finetune"),
        # The stage's name makes the container spec unlike every other one: the backend merges equal ones.
        command=["python", "-m", "llava.executor", "finetune"],
        args=["--executor-input", "{{$}}"],
    )
