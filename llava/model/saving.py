"""Models and projectors on disk or in object storage.

A model is a hub directory: stock `from_pretrained` and `AutoProcessor` load it with no code of ours, and its keys are
those of the published LLaVA checkpoints (`vision_tower.vision_model.*`, `language_model.model.*`), which other engines
expect. A model assembled from parts would by itself save `vision_tower.embeddings.*`, which vLLM does not load.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llava import contents, local_files, storage
from llava.errors import SettingsError, StorageError
from llava.manifest import manifest_uri, read_manifest, sha256
from llava.model import attention, deep_projector, lora, projector, towers
from llava.model.processor_saving import save_processor

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, ProcessorMixin

Gather = Callable[[Sequence[torch.Tensor]], contextlib.AbstractContextManager[Any]]

SHARD_BYTES = 4 * 2**30
PROJECTOR_FILE = "projector.safetensors"
PROJECTOR_CONFIG = "projector_config.json"
_HUB_PREFIXES = (
    ("model.language_model.", "language_model.model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.image_newline", "image_newline"),
    ("lm_head.", "language_model.lm_head."),
)


def hub_key(name: str, tower: str = "clip_vision_model") -> str:
    """The published checkpoints' key for one of the model's parameter names; `tower` is its tower's model type.

    Raises:
        ValueError: the name belongs to no part of a LLaVA.
    """
    tower_prefix = ("model.vision_tower.", towers.FAMILIES[tower].hub_prefix)
    for ours, hub in (tower_prefix, *_HUB_PREFIXES):
        if name.startswith(ours):
            return hub + name[len(ours) :]
    raise ValueError(f"{name}: not a parameter of a LLaVA model")


def save_model(
    model: Any,
    processor: ProcessorMixin,
    uri: str,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    gather: Gather | None = None,
    write: bool = True,
) -> None:
    """Write model and processor as a hub directory at a path or URI, holding one weight file at a time.

    Adapters, where there are any, are merged into the written weights; the model in memory is not changed.

    Args:
        model: as `build_model` made it.
        processor: as `build_processor` made it.
        uri: directory to write; the caller writes its manifest afterwards.
        dtype: of the written floating-point weights; default: as they are.
        shard_bytes: largest weight file.
        gather: where each rank holds a part of every tensor (ZeRO-3): a context in which some of them are whole. It is
            entered for one tensor after another, so all ranks have to call this.
        write: False on ranks that only take part in gathering.

    Raises:
        SettingsError: the processor, reloaded from there, gives other ids or pixels than this one.
    """
    whole = gather or (lambda tensors: contextlib.nullcontext())
    shards = _in_shards(_hub_tensors(model, dtype), shard_bytes)
    if not write:
        for piece in (piece for shard in shards for piece in shard):
            with whole(piece.sources):
                pass
        return
    with _scratch(uri) as scratch:
        folder = Path(scratch)
        _write_config(model, folder, dtype)
        save_processor(processor, folder)
        _write_weights(shards, folder, whole, uri)
        _publish(folder, uri)


def load_model(
    uri: str, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> LlavaForConditionalGeneration:
    """Load a hub directory with the stock class that its config names, the packed attention installed.

    Args:
        uri: hub directory (path, s3:// URI) or hub id.
        dtype: of the parameters; default: as saved.
        device: where they end up.

    Raises:
        SettingsError: no LLaVA there, or weights are missing.
    """
    from transformers import AutoConfig, LlavaForConditionalGeneration, LlavaNextForConditionalGeneration

    from llava.model.sources import check_config, resolve

    path = resolve(uri, "model")
    if Path(path).is_dir():
        config = storage.read_json(str(Path(path) / "config.json"))
        check_config(config, f"model: {uri}: config.json")
        kind = config.get("model_type")
    else:
        kind = AutoConfig.from_pretrained(path).model_type
    if Path(path).is_dir():
        contents.verified(Path(path), "model")
    classes = {
        "llava": LlavaForConditionalGeneration,
        "llava_next": LlavaNextForConditionalGeneration,
        deep_projector.DeepLlavaConfig.model_type: deep_projector.DeepLlavaForConditionalGeneration,
    }
    if kind not in classes:
        raise SettingsError(f"model: {uri} is a {kind!r}; expected one of {', '.join(classes)}")
    from safetensors import SafetensorError

    try:
        # Straight to the device, tensor by tensor out of mapped files; for one that is no CPU that takes accelerate.
        place: dict[str, Any] = {} if torch.device(device).type == "cpu" else {"device_map": {"": str(device)}}
        model, report = classes[kind].from_pretrained(path, dtype=dtype or "auto", output_loading_info=True, **place)
    except (OSError, ValueError, SafetensorError) as error:
        raise SettingsError(f"model: {uri}: its weights cannot be read: {error}") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        absent = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
        raise SettingsError(
            f"model: {uri}: {len(absent)} weights are missing or of another shape, the first {absent[0]!r}"
        )
    projector.remember_kind(model.model.multi_modal_projector)
    attention.install(model)
    return model.to(device).eval()


def save_projector(model: Any, uri: str) -> None:
    """Write stage 1's result: the projector's tensors under hub keys, and what it fits (`projector_config.json`)."""
    from safetensors.torch import save

    tensors = {hub_key(name): tensor.detach().cpu().contiguous() for name, tensor in projector_tensors(model).items()}
    storage.write_bytes(storage.join(uri, PROJECTOR_FILE), save(tensors))
    storage.write_json(storage.join(uri, PROJECTOR_CONFIG), _projector_facts(model))


def load_projector(model: Any, uri: str) -> None:
    """Put a saved projector into a model, in place.

    Raises:
        SettingsError: it was trained for another kind, width or tower layer; the message names both sides.
        StorageError: no projector there, or its bytes are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    facts, expected = storage.read_json(storage.join(uri, PROJECTOR_CONFIG)), _projector_facts(model)
    for name, value in expected.items():
        if facts.get(name) != value:
            raise SettingsError(
                f"projector: {uri}: trained with {name} = {facts.get(name)!r}, but this recipe's model has {value!r}; "
                "use the recipe it was trained with"
            )
    source = storage.join(uri, PROJECTOR_FILE)
    data = storage.read_bytes(source)
    _refuse_damaged(uri, PROJECTOR_FILE, data)
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise StorageError(f"{source}: not a readable safetensors file: {error}") from error
    own = {hub_key(name): tensor for name, tensor in model.state_dict().items() if _is_projector(name)}
    if tensors.keys() != own.keys():
        raise SettingsError(f"projector: {source}: holds {sorted(tensors)}; expected {sorted(own)}")
    with torch.no_grad():
        for key, tensor in own.items():
            if tensor.shape != tensors[key].shape:
                raise SettingsError(
                    f"projector: {source}: {key} has shape {tuple(tensors[key].shape)}; expected {tuple(tensor.shape)}"
                )
            tensor.copy_(tensors[key])


def _refuse_damaged(uri: str, name: str, data: bytes) -> None:
    """Compare bytes with the manifest beside them; a folder without one (of another program) has nothing to compare."""
    if storage.size(manifest_uri(uri)) is None:
        return
    promised = read_manifest(uri).files.get(name)
    if promised is not None and sha256(data) != promised:
        raise StorageError(
            f"{storage.join(uri, name)}: damaged: sha256 {sha256(data)[:12]}…, its manifest says {promised[:12]}…; "
            "restore it, or run the stage that wrote it again"
        )


def projector_tensors(model: Any) -> dict[str, torch.Tensor]:
    """Stage 1's parameters by name: the projector's, and AnyRes's newline."""
    return {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if _is_projector(name)}


def _is_projector(name: str) -> bool:
    return "multi_modal_projector." in name or name.endswith("image_newline")


def _projector_facts(model: Any) -> dict[str, Any]:
    return {
        "projector": projector.kind_of(model.model.multi_modal_projector),
        "vision_width": model.config.vision_config.hidden_size,
        "text_width": model.config.text_config.hidden_size,
        "vision_feature_layer": model.config.vision_feature_layer,
        "vision_feature_select_strategy": model.config.vision_feature_select_strategy,
        "architecture": model.config.model_type,
    }


def _hub_tensors(model: Any, dtype: torch.dtype | None) -> Iterator[lora.Merged]:
    """The merged tensors under hub keys, in the precision they are written in."""
    deep = isinstance(model, deep_projector.DeepLlavaForConditionalGeneration)
    for tensor in lora.merged_tensors(model):
        head = tensor.name.startswith("lm_head.")
        if head and model.config.tie_word_embeddings:
            continue  # the embedding matrix under another name; the config says so
        # transformers translates the head's hub key for its own model types only.
        key = tensor.name if head and deep else hub_key(tensor.name, model.config.vision_config.model_type)
        written = dtype if dtype is not None and tensor.dtype.is_floating_point else tensor.dtype
        yield dataclasses.replace(tensor, name=key, dtype=written)


def _in_shards(tensors: Iterable[lora.Merged], shard_bytes: int) -> list[list[lora.Merged]]:
    shards: list[list[lora.Merged]] = [[]]
    filled = 0
    for tensor in tensors:
        size = _bytes_of(tensor)
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += size
    return shards


def _bytes_of(tensor: lora.Merged) -> int:
    return math.prod(tensor.shape) * tensor.dtype.itemsize


def _write_weights(shards: list[list[lora.Merged]], folder: Path, whole: Gather, uri: str) -> None:
    """One file after the other; in a store each is there before the next is made, so that scratch holds one."""
    from safetensors.torch import save_file

    where = {}
    for index, shard in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        tensors = {}
        for piece in shard:
            with whole(piece.sources):
                tensors[piece.name] = _on_the_host(piece)
        save_file(tensors, folder / name, metadata={"format": "pt"})
        where.update(dict.fromkeys(tensors, name))
        if storage.is_remote(uri):
            storage.upload(folder / name, storage.join(uri, name))
            (folder / name).unlink()
    if len(shards) > 1:
        total = sum(_bytes_of(piece) for shard in shards for piece in shard)
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=2)
        )


def _on_the_host(piece: lora.Merged) -> torch.Tensor:
    tensor = piece.make().to(device="cpu", dtype=piece.dtype).contiguous()
    # What was gathered goes when its context ends; views of a larger storage would be written with all of it.
    borrowed = tensor.storage_offset() or any(hasattr(source, "ds_id") for source in piece.sources)
    return tensor.clone() if borrowed else tensor


def _write_config(model: Any, folder: Path, dtype: torch.dtype | None) -> None:
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.text_config.use_cache = True  # off while training, wanted by whoever serves it
    written = dtype or model.dtype
    for part in (config, config.text_config, config.vision_config):
        part.dtype = written
        if hasattr(part, "quantization_config"):
            del part.quantization_config  # what is written is whole again
        part._name_or_path = ""  # where it lay on this machine is nobody's business
    if isinstance(model, deep_projector.DeepLlavaForConditionalGeneration):
        code = Path(deep_projector.__file__)
        shutil.copy2(code, folder / f"modeling_{code.name}")
        module = f"modeling_{code.stem}"
        config.auto_map = {
            "AutoConfig": f"{module}.{type(config).__name__}",
            "AutoModelForImageTextToText": f"{module}.{type(model).__name__}",
        }
    config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def _scratch(uri: str) -> contextlib.AbstractContextManager[str | Path]:
    # A local target is written on its own disk, so that publishing is a rename and /tmp need not hold a model.
    if storage.is_remote(uri):
        return tempfile.TemporaryDirectory(prefix="llava-save-")
    return local_files.folder_beside(storage.local_path(uri))


def _publish(folder: Path, uri: str) -> None:
    if storage.is_remote(uri):
        storage.upload(folder, uri)
        return
    target = storage.local_path(uri)
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        to = target / path.relative_to(folder)
        to.parent.mkdir(parents=True, exist_ok=True)
        local_files.put_in_place(path, to, durable=True)  # safetensors makes its files unreadable to others
    for place in {target, *(path for path in target.rglob("*") if path.is_dir())}:
        local_files.sync_folder(place)
