"""Preflight of both training stages: recipe, rows, images, models, projector, room on disk and in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from llava import accelerators, extras, storage
from llava.config import Recipe, TrainRecipe
from llava.errors import UserError
from llava.model import families, towers
from llava.stages.preflight import places

if TYPE_CHECKING:
    from llava.stages.train_stage import TrainSettings

# Bytes a parameter that is trained, by AdamW with fp32 masters: masters and two moments.
_OPTIMIZER_BYTES = 12


def faults(
    stage: Literal["pretrain", "finetune"], settings: TrainSettings, inputs: Mapping[str, str], here: bool
) -> Iterator[str]:
    """What is wrong; places, models and this machine are looked at only where the stage runs here."""
    from llava.multinode.train_on_nodes import read_node_settings
    from llava.stages.train_stage import read_recipe
    from llava.tracking.destinations import read_destinations, require_libraries

    if settings.processes != "auto" and not re.fullmatch(r"[1-9]\d*", settings.processes):
        yield f"processes: found {settings.processes!r}; expected auto or a number of at least 1"
    try:
        read_node_settings(settings.train_job)
    except UserError as error:
        yield str(error)
    try:
        destinations = read_destinations(settings.tracking)
        if here:
            require_libraries(destinations)
    except UserError as error:
        yield str(error)
    if not here and "/" in settings.recipe:
        return  # a path inside the image or on a volume: only the pod can tell
    try:
        recipe = read_recipe(settings)
    except UserError as error:
        yield f"recipe {settings.recipe}: {error}" if settings.recipe not in str(error) else str(error)
        return
    if here:
        train: TrainRecipe = getattr(recipe, stage)
        yield from _libraries(stage, train)
        yield from _data(inputs.get("data", ""))
        yield from places.folders("images_uri", settings.images_uri)
        configs: dict[str, dict[str, Any] | None] = {}
        for field in ("vision_tower", "language_model"):
            source = getattr(recipe.model, field)
            if absent := [*places.model(field, source)]:
                yield from absent
                continue
            configs[field] = places.config_of(field, source)  # once: each read of a remote one is a request
            yield from _family(field, source, configs[field])
        if settings.resume_uri:
            yield from places.exists("resume_uri", settings.resume_uri, "folder")
        if inputs.get("projector"):
            yield from projector(inputs["projector"], recipe, configs)
        if train.nodes == 1:
            yield from _memory(stage, recipe, train)


def outputs(
    stage: Literal["pretrain", "finetune"], settings: TrainSettings, places_of: Mapping[str, str]
) -> Iterator[str]:
    """Whether what a stage writes fits on the disks it writes to."""
    from llava.stages.train_stage import read_recipe

    try:
        recipe = read_recipe(settings)
    except UserError:
        return  # said already
    train: TrainRecipe = getattr(recipe, stage)
    count = _parameters(recipe.model.language_model)
    if stage == "finetune" and count and train.lora is None:
        width = 2 if train.precision == "bf16" else 4
        checkpoint = count * (_OPTIMIZER_BYTES + width)
        yield from places.room("checkpoints", places_of["checkpoints"], checkpoint * (train.keep_checkpoints + 1))
        yield from places.room("model", places_of["model"], count * width)


def projector(uri: str, recipe: Recipe, configs: Mapping[str, dict[str, Any] | None]) -> Iterator[str]:
    """Whether a saved projector is of the recipe's kind and joins the recipe's two models.

    Args:
        configs: the models' `config.json` by field; absent or None where it is not at hand.
    """
    place = storage.join(uri, "projector_config.json")
    missing = [*places.exists("projector", place, "file")]
    if missing:
        yield f"projector: {uri}: no projector_config.json there; expected the folder that pretrain wrote"
        return
    try:
        facts = storage.read_json(place)
    except UserError as error:
        yield f"projector: {error}"
        return
    if not isinstance(facts, dict):
        yield f"projector: {place}: found {type(facts).__name__}; expected an object"
        return
    asked: dict[str, Any] = {
        "projector": recipe.model.projector,
        "vision_feature_layer": recipe.model.vision_feature_layer,
        "architecture": recipe.model.architecture,
    }
    widths = {
        "vision_width": _width(configs.get("vision_tower"), "vision_config"),
        "text_width": _width(configs.get("language_model"), "text_config"),
    }
    tower = (configs.get("vision_tower") or {}).get("model_type")
    if isinstance(tower, str) and (kind := towers.inner_type(tower)) in towers.FAMILIES:
        strategy = towers.strategy_for(kind, recipe.model.vision_feature_select_strategy)
        asked["vision_feature_select_strategy"] = strategy
    asked |= {name: width for name, width in widths.items() if width is not None}
    for name, expected in asked.items():
        if name in facts and facts[name] != expected:
            yield (
                f"projector: {uri}: trained with {name} = {facts[name]!r}, but this recipe's models have {expected!r}; "
                "use the recipe and models it was trained with"
            )


def _libraries(stage: str, train: TrainRecipe) -> Iterator[str]:
    needed = ["torch", "transformers", "deepspeed", "safetensors", "tokenizers"]
    if train.lora is not None and stage == "finetune":
        needed.append("peft")
        if train.lora.quantize_4bit and (found := extras.fault(f"{stage}.lora.quantize_4bit", "qlora")):
            yield found
    if train.kernels == "liger" and (found := extras.fault(f"{stage}.kernels liger", "liger")):
        yield found
    if found := extras.fault(stage, "train", needed):
        yield found


def _data(uri: str) -> Iterator[str]:
    if not uri:
        return  # made by a stage before this one
    from llava.data.row_sources import HUB, TABLE, files_of, form_of

    asked = [part for part in places.parts(uri) if not part.startswith(HUB)]
    absent = [fault for part in asked if not set(part) & set("*?[") for fault in places.exists("data", part)]
    yield from absent
    if absent or any(storage.is_remote(part) for part in asked):
        return
    try:
        files = files_of(",".join(asked)) if asked else []
    except UserError as error:
        yield f"data: {error}"
        return
    tables = [file for file in files if form_of(file) == TABLE]
    if tables and (found := extras.fault(f"data {tables[0]}", "train", ["pyarrow"])):
        yield found


def _family(field: str, source: str, config: dict[str, Any] | None) -> Iterator[str]:
    """Whether a model at hand is of a family that the stock class carries; of one at the hub only its loading tells."""
    if config is None:
        return
    try:
        if field == "vision_tower":
            towers.family_of(config.get("model_type"), source)
        else:
            families.check(SimpleNamespace(**{"model_type": None, **config}), source)
    except UserError as error:
        yield str(error).removeprefix("model.")


def _width(config: dict[str, Any] | None, section: str) -> int | None:
    if config is None:
        return None
    inner = config.get(section, config)
    width = inner.get("hidden_size") if isinstance(inner, dict) else None
    return width if isinstance(width, int) else None


def _parameters(source: str) -> int | None:
    """Parameters of a local model, by its files' size; None of one that is not here."""
    folder = places.model_folder("language_model", source)
    if folder is None or not folder.is_dir():
        return None
    held = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    held = held or sum(file.stat().st_size for file in folder.glob("pytorch_model*.bin"))
    config = places.config_of("language_model", source) or {}
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return int(held / (4 if dtype == "float32" else 2)) or None


def _memory(stage: str, recipe: Recipe, train: TrainRecipe) -> Iterator[str]:
    """Without a GPU, weights and optimizer lie in host memory; a process that runs out is killed without a word."""
    if list(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists():
        return
    count = _parameters(recipe.model.language_model)
    if count is None:
        return
    width = 2 if train.precision == "bf16" else 4
    trained = stage == "finetune" and train.lora is None
    needed = count * (2 * width + _OPTIMIZER_BYTES if trained else width)
    available = available_bytes()
    if available is not None and needed > available:
        yield (
            f"language_model: {recipe.model.language_model}: {count / 1e9:.1f} billion parameters want about "
            f"{needed / places.GIB:.0f} GiB of memory on CPU, {available / places.GIB:.0f} GiB are free; take a GPU, "
            "a smaller model, or (finetune) lora"
        )


def available_bytes() -> int | None:
    """Memory that this process may still take: of the machine or of its control group, whichever is less."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return accelerators.memory_limit_bytes()
    free = int(found[1]) * 1024 if found else None
    bounds = [bound for bound in (free, accelerators.memory_limit_bytes()) if bound is not None]
    return min(bounds) if bounds else None
