"""Questions about files, folders and models, each answered by a fault or nothing; only small files are read."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llava
from llava import storage
from llava.errors import UserError
from llava.suggestions import near

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
GIB = 2**30


def parts(uris: str) -> list[str]:
    """The places of a comma-separated list."""
    return [part.strip() for part in uris.split(",") if part.strip()]


def exists(field: str, uri: str, kind: str = "") -> Iterator[str]:
    """A fault when nothing stands at `uri`, or something of another kind.

    Args:
        field: the setting it was given by.
        kind: `file`, `folder`, or empty for either.
    """
    try:
        if not storage.is_remote(uri):
            path = storage.local_path(uri)
            if not path.exists():
                yield f"{field}: {uri}: no such {kind or 'file or folder'}{_beside(path)}"
            elif kind == "folder" and not path.is_dir():
                yield f"{field}: {uri}: found a file; expected a folder"
            elif kind == "file" and path.is_dir():
                yield f"{field}: {uri}: found a folder; expected a file{_held(path)}"
            elif not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
                yield f"{field}: {uri}: not readable by this user (see its mode and owner)"
            return
        if kind == "file" and storage.size(uri) is None:
            yield f"{field}: {uri}: no such object in the store"
        elif kind != "file" and not storage.exists(uri):
            yield f"{field}: {uri}: nothing below it in the store"
    except (UserError, OSError, ValueError) as error:
        yield f"{field}: {error}"


def folders(field: str, uris: str) -> Iterator[str]:
    """`exists` for each of a comma-separated list of folders."""
    for uri in parts(uris):
        yield from exists(field, uri, "folder")


def writable(field: str, uri: str) -> Iterator[str]:
    """A fault when nothing can be written at a local place; of a store only a write can tell."""
    if storage.is_remote(uri):
        return
    try:
        path = storage.local_path(uri).absolute()
    except UserError as error:
        yield f"{field}: {error}"
        return
    while not path.exists() and path != path.parent:
        path = path.parent
    if not os.access(path, os.W_OK) or (path.is_file() and path != storage.local_path(uri).absolute()):
        what = "is a file" if path.is_file() else "is not writable by this user"
        yield f"{field}: {uri}: {path} {what}; expected a place that can be written to"


def model_folder(field: str, source: str) -> Path | None:
    """The local folder behind a model's name, as `model.sources.resolve` finds it; None for a hub id or a store."""
    if storage.is_remote(source):
        return None
    plain = storage.local_path(source) if source.startswith("file://") else Path(source)
    package = Path(llava.__file__).parent
    for candidate in (plain, package.parent / plain, package / f"_{source}"):
        if candidate.exists():
            return candidate
    return None


def model(field: str, source: str) -> Iterator[str]:
    """A fault when `source` is no model directory, no URI of one and no hub id, or cannot be fetched offline."""
    if storage.is_remote(source):
        yield from exists(field, storage.join(source, "config.json"), "file")
        return
    folder = model_folder(field, source)
    if folder is not None:
        if not folder.is_dir():
            yield f"{field}: {source}: found a file; expected a model directory (config.json, weights, tokenizer)"
        elif not (folder / "config.json").is_file():
            yield f"{field}: {source}: no config.json there; expected a model directory{_held(folder)}"
        return
    if not _HUB_ID.match(source):
        yield f"{field}: {source}: no such folder, and no hub id (owner/name){_beside(Path(source))}"
    elif os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on") and not _in_hub_cache(source):
        yield (
            f"{field}: {source}: not in this machine's hub cache, and HF_HUB_OFFLINE is set; "
            "expected a local folder, or a connection to the hub"
        )


def config_of(field: str, source: str) -> dict[str, Any] | None:
    """A model's `config.json` where it is at hand without fetching; None elsewhere, or when it cannot be read."""
    folder = model_folder(field, source)
    try:
        if folder is not None:
            read = storage.read_json(str(folder / "config.json"))
        elif storage.is_remote(source):
            read = storage.read_json(storage.join(source, "config.json"))
        else:
            return None
    except UserError:
        return None
    return read if isinstance(read, dict) else None


def room(field: str, uri: str, needed: float) -> Iterator[str]:
    """A fault when the disk below a local place has fewer than `needed` bytes free."""
    if storage.is_remote(uri):
        return
    path = storage.local_path(uri).absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    free = shutil.disk_usage(path).free
    if free < needed:
        yield (
            f"{field}: {uri}: about {needed / GIB:.1f} GiB will be written (model and checkpoints), "
            f"{free / GIB:.1f} GiB are free at {path}; make room, or lower keep_checkpoints"
        )


def _in_hub_cache(name: str) -> bool:
    home = os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    return (cache / f"models--{name.replace('/', '--')}").is_dir()


def _beside(path: Path) -> str:
    """The names near a missing path, so that a slip of the pen is seen."""
    try:
        parent = path.parent
        if not parent.is_dir():
            while not parent.exists() and parent != parent.parent:
                parent = parent.parent
            return f" ({parent} is there, what follows is not)" if str(parent) not in (".", "/") else ""
        close = near(path.name, [item.name for item in parent.iterdir()])
    except (OSError, ValueError):
        return ""
    return f"; did you mean {parent / close[0]}?" if close else ""


def _held(folder: Path) -> str:
    names = sorted(item.name for item in folder.iterdir())[:4] if os.access(folder, os.R_OK | os.X_OK) else []
    return f" (it holds {', '.join(names)})" if names else " (it is empty)"
