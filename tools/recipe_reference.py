"""Writes docs/recipe-reference.md from the recipes' schema: `python -m tools.recipe_reference`.

Names, types, defaults and meanings are the schema's own (`llava/config.py`). Units, and when a field is worth changing,
stand here; a field without them is an error, and a test holds the page to what this writes.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from llava.config import LoraRecipe, ModelRecipe, Recipe, TrainRecipe

PAGE = Path(__file__).parents[1] / "docs" / "recipe-reference.md"

# field -> (unit, when to change it)
NOTES: dict[str, tuple[str, str]] = {
    "Recipe.name": ("", "always: reports and manifests carry it"),
    "Recipe.description": ("", "one line for people"),
    "Recipe.model": ("", "see the next table"),
    "Recipe.pretrain": ("", "stage 1"),
    "Recipe.finetune": ("", "stage 2"),
    "ModelRecipe.vision_tower": ("", "another tower; [models.md](models.md) has the families"),
    "ModelRecipe.language_model": ("", "another language model; its `template` changes with it"),
    "ModelRecipe.architecture": ("", "`llava_next` for small print in large images; some five times the visual tokens"),
    "ModelRecipe.projector": ("", "`linear` repeats LLaVA v1; deeper than 2 is served by transformers alone"),
    "ModelRecipe.vision_feature_layer": ("layer", "hardly ever; -2 is what published models were trained with"),
    "ModelRecipe.vision_feature_select_strategy": ("", "hardly ever"),
    "ModelRecipe.image_grid_pinpoints": ("pixels", "to allow fewer or other tiles"),
    "TrainRecipe.template": ("", "to the language model's own conversation; `plain` in stage 1"),
    "TrainRecipe.image_aspect_ratio": ("", "`pad` loses nothing of an image; `crop` is stage 1 of 1.5"),
    "TrainRecipe.device_preprocess": ("", "when `wait` in the progress line says that the host is too slow"),
    "TrainRecipe.max_length": ("tokens", "when `llava data check` counts many rows that are cut"),
    "TrainRecipe.epochs": ("passes", "small data sets take 2 or 3"),
    "TrainRecipe.max_steps": ("steps", "for a trial; the schedule then ends there too"),
    "TrainRecipe.global_batch_size": ("rows", "with the learning rate; a step sees them whatever the number of GPUs"),
    "TrainRecipe.micro_batch_size": ("rows", "without packing: as many as fit in memory"),
    "TrainRecipe.packing": ("", "off for tiny models on CPU"),
    "TrainRecipe.pack_tokens": ("tokens", "to what `llava plan` says fits; larger packs are faster"),
    "TrainRecipe.pack_images": ("images", "pack_tokens by the visual tokens of an image, and some to spare"),
    "TrainRecipe.group_by_modality_length": ("", "without packing: less padding"),
    "TrainRecipe.learning_rate": ("", "smaller for larger models and small data sets; larger with LoRA"),
    "TrainRecipe.projector_learning_rate": ("", "with LoRA, whose own rate is too large for it"),
    "TrainRecipe.vision_tower_learning_rate": (
        "",
        "when images are unlike photographs; a tenth of learning_rate or less",
    ),
    "TrainRecipe.weight_decay": ("", "hardly ever; published runs have none"),
    "TrainRecipe.betas": ("", "hardly ever"),
    "TrainRecipe.eps": ("", "hardly ever"),
    "TrainRecipe.warmup_ratio": ("share of steps", "longer where the first steps are unstable"),
    "TrainRecipe.schedule": ("", "`constant` where a run's length is not known"),
    "TrainRecipe.max_grad_norm": ("L2 norm", "1.0 where the loss has spikes"),
    "TrainRecipe.precision": ("", "`fp32` for tiny models on CPU"),
    "TrainRecipe.zero_stage": ("", "up until it fits: 1 moments, 2 gradients, 3 weights are cut over GPUs"),
    "TrainRecipe.offload_optimizer": ("", "when ZeRO alone does not fit; slower"),
    "TrainRecipe.offload_parameters": ("", "as a last resort; much slower"),
    "TrainRecipe.activation_checkpoint_every_n_layers": (
        "layers",
        "when activations do not fit; 1 costs up to half again",
    ),
    "TrainRecipe.compile": ("", "on for GPUs: pays after some minutes"),
    "TrainRecipe.kernels": ("", "`liger` where activations are what does not fit"),
    "TrainRecipe.lora": ("", "stage 2 on few or small GPUs"),
    "TrainRecipe.nodes": ("nodes", "on a cluster with Kubeflow Trainer ([operations.md](operations.md))"),
    "TrainRecipe.seed": ("", "to see how much a result depends on it"),
    "TrainRecipe.loader_workers": ("threads", "up while `wait` is not near 0 and cores are free"),
    "TrainRecipe.save_every_steps": ("steps", "down on spot nodes: what is lost is at most this many"),
    "TrainRecipe.keep_checkpoints": ("checkpoints", "up to compare them afterwards (`llava evaluate checkpoints`)"),
    "TrainRecipe.log_every_steps": ("steps", "down for short runs"),
    "TrainRecipe.validation_rows": ("rows", "some hundred, to see overfitting"),
    "TrainRecipe.validate_every_steps": ("steps", "down for short runs"),
    "TrainRecipe.sample_generations": ("rows", "more examples in the report"),
    "TrainRecipe.max_bad_rows": ("share of rows", "0 for data that should be clean"),
    "LoraRecipe.r": ("rank", "smaller for small data sets"),
    "LoraRecipe.alpha": ("", "with r: alpha / r scales the adapters"),
    "LoraRecipe.dropout": ("share", "0 for large data sets"),
    "LoraRecipe.target_modules": ("", "for families with other names (Phi-3: [models.md](models.md))"),
    "LoraRecipe.quantize_4bit": ("", "when the weights alone do not fit on a GPU"),
}
_SECTIONS: tuple[tuple[type[BaseModel], str], ...] = (
    (Recipe, "The file"),
    (ModelRecipe, "`model`"),
    (TrainRecipe, "`pretrain` and `finetune`"),
    (LoraRecipe, "`lora`, inside a stage"),
)


def page() -> str:
    """The whole page."""
    known = {f"{section.__name__}.{name}" for section, _ in _SECTIONS for name in section.model_fields}
    if known != NOTES.keys():
        raise SystemExit(f"NOTES and the schema differ: {', '.join(sorted(known ^ NOTES.keys()))}")
    lines = [
        "# Recipe reference",
        "",
        "Every field of a recipe, from its schema; written by `python -m tools.recipe_reference`. What recipes are",
        "for, and which come with the project: [recipes.md](recipes.md). Any field may be changed for one run:",
        "`--overrides '{\"finetune.max_steps\": 100}'`.",
    ]
    for section, title in _SECTIONS:
        count = len(section.model_fields)
        lines += [
            "",
            f"## {title}",
            "",
            f"{count} fields.",
            "",
            "| field | value | default | meaning | when to change it |",
        ]
        lines += ["|---|---|---|---|---|"]
        lines += [_row(section, name, field) for name, field in section.model_fields.items()]
    return "\n".join(lines) + "\n"


def _row(section: type[BaseModel], name: str, field: FieldInfo) -> str:
    unit, when = NOTES[f"{section.__name__}.{name}"]
    value = ", ".join(part for part in (_kind(field.annotation), _bounds(field), unit) if part)
    cells = (f"`{name}`", value, _default(field), field.description or "", when)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _kind(annotation: Any) -> str:
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin in (Union, types.UnionType):
        return " or ".join("nothing" if one is type(None) else _kind(one) for one in inside)
    if origin in (list, tuple):
        return f"list of {_kind(inside[0])}"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    if annotation in names:
        return names[annotation]
    return "section" if isinstance(annotation, type) and issubclass(annotation, BaseModel) else "text"


def _bounds(field: FieldInfo) -> str:
    signs = {Ge: ("from", "ge"), Gt: ("above", "gt"), Le: ("to", "le"), Lt: ("below", "lt")}
    found = [
        (word, getattr(bound, name))
        for bound in field.metadata
        for kind, (word, name) in signs.items()
        if isinstance(bound, kind)
    ]
    return " ".join(f"{word} {value}" for word, value in found)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"written: {PAGE.name}")
