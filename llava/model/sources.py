"""Where a base model comes from: hub id, directory or s3:// URI of a hub directory, turned into something loadable."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llava
from llava import storage
from llava.errors import SettingsError
from llava.model import families, towers
from llava.model.node_copies import node_copy

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")


def resolve(source: str, field: str, *, weights: bool = True) -> str:
    """What `from_pretrained` takes for `source`: a local directory (fetched first when remote) or a hub id.

    Of a remote one only what is asked for is fetched: its weights, or configuration and tokenizer alone.

    A relative path is looked up from the working directory, then from the project's own root, so that the
    recipes that name the shipped base models work from anywhere.

    Raises:
        SettingsError: neither a directory with a config.json nor of the form of a hub id.
        StorageError: nothing stands at the URI.
    """
    if storage.is_remote(source):
        return str(_checked(node_copy(source, field, weights=weights), source, field))
    if source.startswith("file://"):
        return str(_checked(storage.as_local(source), source, field))
    package = Path(llava.__file__).parent
    # An installed wheel carries the shipped base models inside.
    for candidate in (Path(source), package.parent / source, package / f"_{source}"):
        if candidate.exists():
            return str(_checked(candidate, source, field))
    if _HUB_ID.match(source):
        return source
    raise SettingsError(
        f"{field}: found {source!r}; expected a directory with a config.json, an s3:// URI of one, "
        "or a hub id (owner/name)"
    )


def vision_config(source: str) -> Any:
    """The tower's configuration, from a tower of a known family (`towers.FAMILIES`) or the whole model around it.

    Raises:
        SettingsError: of another family, not square, or it cannot be read.
    """
    config = _config(source, "model.vision_tower")
    towers.family_of(config.model_type, source)
    inner = getattr(config, "vision_config", config)
    towers.check_shape(inner, source)
    if getattr(inner, "vision_use_head", False):
        inner.vision_use_head = False  # SigLIP's pooling head: nothing of LLaVA runs it, and hub LLaVAs have none
    return inner


def text_config(source: str) -> PreTrainedConfig:
    """The language model's configuration.

    Raises:
        SettingsError: of a family that is not supported (`families.SUPPORTED`), or it cannot be read.
    """
    config = _config(source, "model.language_model")
    families.check(config, source)
    return config


def _config(source: str, field: str) -> Any:
    from transformers import AutoConfig

    path = resolve(source, field, weights=False)
    if Path(path).is_dir():
        # transformers takes much for granted: an empty file, another encoding, -1 layers (all of them dropped).
        check_config(storage.read_json(str(Path(path) / "config.json")), f"{field}: {source}: config.json")
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SettingsError(f"{field}: {source}: its configuration cannot be read: {error}") from error


_COUNTS = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size",
    "image_size", "patch_size", "projection_dim", "max_position_embeddings", "n_layer", "n_head", "n_embd",
)  # fmt: skip


def check_config(config: Any, where: str) -> None:
    """Refuse sizes that are no sizes, at any depth of a model's configuration.

    Raises:
        SettingsError: not a JSON object, or a count that is no whole number above 0.
    """
    if not isinstance(config, dict):
        raise SettingsError(f"{where}: found {type(config).__name__}; expected a JSON object")
    for name, value in config.items():
        if name in _COUNTS and value is not None and (type(value) is not int or not 0 < value < 10**9):
            if isinstance(value, list) and value and all(type(one) is int and 0 < one < 10**9 for one in value):
                continue  # some towers give (height, width)
            raise SettingsError(f"{where}: {name}: found {value!r}; expected a whole number above 0")
        if isinstance(value, dict) and name.endswith("_config"):
            check_config(value, f"{where}: {name}")


def _checked(path: Path, source: str, field: str) -> Path:
    if not (path / "config.json").is_file():
        raise SettingsError(
            f"{field}: {source}: no config.json there; "
            "expected a hub directory (config.json, weights, tokenizer or preprocessor)"
        )
    return path
