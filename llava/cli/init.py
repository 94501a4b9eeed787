"""`llava init`: a commented `run.yaml` from the answers a person knows, and first questions where there are none."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from llava import storage
from llava.errors import DataError, SettingsError
from llava.stages.preflight import places

app = typer.Typer()

_ASKED = 12  # photographs in the first file of questions
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


@app.command("init")
def init(
    images: Annotated[str, typer.Option(help="Folder or s3:// prefix of your pictures")],
    annotations: Annotated[
        str,
        typer.Option(help="Captions: CSV, TSV, JSON (lines) with image and caption; or a COCO annotations folder"),
    ] = "",
    rows: Annotated[str, typer.Option(help="In place of captions: your own rows, in any form of docs/rows.md")] = "",
    pretrain_rows: Annotated[
        str, typer.Option("--pretrain-rows", help="With --rows: other rows for stage 1", show_default="those of --rows")
    ] = "",
    questions: Annotated[
        str,
        typer.Option(help="Questions to ask the trained model", show_default="questions.jsonl, written beside --out"),
    ] = "",
    recipe: Annotated[
        str, typer.Option(help="Recipe: a bundled name or a YAML file", show_default="tiny, or llava-v1.5-7b with GPUs")
    ] = "",
    gpus: Annotated[int, typer.Option(help="GPUs of the machine or pod that trains", min=0)] = 0,
    steps: Annotated[int, typer.Option(help="Optimiser steps of each stage; 0: the recipe's", min=0)] = 0,
    out: Annotated[Path, typer.Option(help="File to write")] = Path("run.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there")] = False,
) -> None:
    """Write the file that `llava pipeline run --params` takes, with what each line means."""
    if bool(annotations) == bool(rows):
        raise SettingsError("give one of --annotations (captions of your pictures) and --rows (rows you have already)")
    if pretrain_rows and not rows:
        raise SettingsError("--pretrain-rows goes with --rows")
    if out.exists() and not force:
        raise SettingsError(f"{out}: there already; give another --out, or --force to write over it")
    faults = [*places.exists("--images", images, "folder")]
    for flag, uris in (("--annotations", annotations), ("--rows", rows), ("--pretrain-rows", pretrain_rows)):
        faults += [fault for uri in places.parts(uris) for fault in places.exists(flag, uri)]
    faults += [fault for uri in places.parts(questions) for fault in places.exists("--questions", uri)]
    if faults:
        raise SettingsError("\n".join(faults))
    recipe = recipe or ("llava-v1.5-7b" if gpus else "tiny")
    from llava.config import load_recipe

    load_recipe(recipe)
    if not questions:
        questions = str(out.parent / "questions.jsonl")
        _write_questions(Path(questions), images)
    text = run_file(
        images=images,
        annotations=annotations,
        rows=rows,
        pretrain_rows=pretrain_rows or rows,
        questions=questions,
        recipe=recipe,
        gpus=gpus,
        steps=steps,
    )
    storage.write_text(str(out), text)
    package = " --package from-pretrain" if rows else ""
    typer.echo(f"{out} written; look at it, then\n  llava pipeline run{package} --params {out} --root runs/mine")


def run_file(
    *,
    images: str,
    annotations: str,
    rows: str,
    pretrain_rows: str,
    questions: str,
    recipe: str,
    gpus: int,
    steps: int,
) -> str:
    """The text of a `run.yaml`."""
    blocks: list[tuple[str, dict[str, object]]] = [
        ("Your pictures: a folder, or s3://bucket/prefix.", {"images_uri": images})
    ]
    if annotations:
        blocks += [
            (
                "Captions, which become training rows. A list has the columns image (a path below images_uri) and "
                "caption; several captions of a picture are several lines.",
                {"expand_annotations_uri": annotations},
            ),
            (
                "Rows to make of them: conversation, detail, reasoning (by a teacher), naive (a caption and a brief "
                "question) and region (needs boxes).",
                {"expand_kinds": "conversation,detail,reasoning,naive"},
            ),
            (
                "Who writes the rows. offline is free and simple; openai is any OpenAI-compatible endpoint, paid or "
                "your own (the key comes from OPENAI_API_KEY): then also give expand_teacher_model, "
                "expand_teacher_endpoint and expand_max_cost.",
                {"expand_teacher": "offline"},
            ),
        ]
    else:
        blocks.append(
            (
                "Your rows, in any form of docs/rows.md: stage 1 aligns the projector, stage 2 trains on instructions.",
                {"pretrain_data_uri": pretrain_rows, "instruct_data_uri": rows},
            )
        )
    blocks += [
        (
            "The recipe decides the models and how they are trained. tiny: small models, minutes on a CPU, for trying. "
            "llava-v1.5-7b and its siblings: the real ones, on GPUs. docs/recipes.md says how to change one.",
            {"recipe": recipe},
        ),
        (
            "GPUs for training, as text. Without any the CPU trains.",
            {"train_accelerators": str(gpus), "evaluate_accelerators": str(min(gpus, 1))},
        ),
        (
            "What to ask the model at the end, one question a line. With an answer it is scored, without only shown.",
            {"evaluate_benchmark": "custom", "evaluate_questions_uri": questions, "evaluate_images_uri": images},
        ),
    ]
    if steps:
        fields = [
            {f"{stage}.max_steps": steps, f"{stage}.save_every_steps": steps} for stage in ("pretrain", "finetune")
        ]
        blocks.append(
            (
                "Fields of the recipe that are changed for this run.",
                {"pretrain_overrides": fields[0], "finetune_overrides": fields[1]},
            )
        )
    lines = [
        "# Parameters of a run, for `llava pipeline run --params` here and `submit --params` on Kubeflow.",
        "# Every other parameter keeps its default; `llava pipeline parameters` shows them all.",
    ]
    for comment, values in blocks:
        lines += ["", *textwrap.wrap(comment, 100, initial_indent="# ", subsequent_indent="# ")]
        for name, value in values.items():
            if isinstance(value, dict):
                lines += [f"{name}:", *(f"  {field}: {json.dumps(one)}" for field, one in value.items())]
            else:
                lines.append(f"{name}: {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _write_questions(file: Path, images: str) -> None:
    if file.exists():
        return
    held = sorted(item.path for item in storage.list_files(images) if item.path.lower().endswith(_IMAGES))
    if not held:
        raise DataError(f"--images: {images}: no picture in it ({', '.join(_IMAGES)})")
    step = max(1, len(held) // _ASKED)
    lines = [
        json.dumps({"question": "What is in the picture?", "image": path}, ensure_ascii=False) for path in held[::step]
    ]
    storage.write_text(str(file), "\n".join(lines[:_ASKED]) + "\n")
    typer.echo(
        f"{file} written: a question about {len(lines[:_ASKED])} of your pictures; put in your own, with an answer"
    )
