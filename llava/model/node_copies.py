"""Models in object storage, copied to a node once for all its ranks, and no more of them than is asked for.

Configuration and tokenizer are a few megabytes: whoever needs these fetches no weights. Weights are fetched by the
first rank of the node that asks, in the one form that will be read (safetensors where there are any), while the others
wait for it; every file must be there before the first byte is fetched, and is checked afterwards.

The copies lie below `LLAVA_NODE_CACHE`, which whoever starts the ranks sets to a folder of its own; without it they go
with the process.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from llava import storage
from llava.errors import SettingsError, StorageError
from llava.manifest import sha256_of
from llava.node_cache import node_cache, only_one

_WEIGHTS = (
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".onnx",
    ".onnx_data",
    ".gguf",
    ".ot",
    ".npz",
)
_FORMS = ("model.safetensors", "pytorch_model.bin")  # in from_pretrained's own order
_SHOW_EVERY_S = 10.0


def node_copy(uri: str, field: str, *, weights: bool) -> Path:
    """A local folder with the hub directory at a remote `uri`.

    Args:
        field: the setting that names it, for messages.
        weights: with the weights too.

    Raises:
        SettingsError: no weights there, or an index names a file that is not there; found before any are fetched.
        StorageError: nothing at `uri`, the disk is too small (found before anything is fetched), the store did not
            answer, or a fetched file is damaged.
    """
    listed = {item.path: item.size for item in storage.list_files(uri)}
    if not listed:
        raise StorageError(f"{uri}: no such object or folder")
    # Another version of the model under the same name is another copy.
    version = hashlib.sha256(json.dumps([uri, sorted(listed.items())]).encode()).hexdigest()[:24]
    folder = node_cache() / version / (uri.rstrip("/").rpartition("/")[2] or "model")
    small = sorted(name for name in listed if not name.endswith(_WEIGHTS))
    with only_one(folder):
        _fetch(uri, small, folder, "settings")
        if weights:
            names = _weight_files(uri, field, listed, folder)
            _fetch(uri, names, folder, "weights")
    return folder


def node_file(uri: str) -> Path:
    """A local copy of one remote file, fetched once for all ranks of this node.

    Raises:
        StorageError: as `storage.download`.
    """
    version = hashlib.sha256(json.dumps([uri, storage.size(uri)]).encode()).hexdigest()[:24]
    target = node_cache() / version / "file"
    with only_one(target.parent):
        if not target.exists():
            storage.download(uri, target)
    return target


def _fetch(uri: str, names: list[str], folder: Path, what: str) -> None:
    done = folder.parent / f"{what}.done"
    if done.exists():
        return
    storage.download_files(uri, names, folder, _shown(uri))
    _check(uri, names, folder)
    done.touch()


def _weight_files(uri: str, field: str, listed: Mapping[str, int], folder: Path) -> list[str]:
    """The files that `from_pretrained` will read."""
    for form in _FORMS:
        if form in listed:
            return [form]
        index = f"{form}.index.json"
        if index not in listed:
            continue
        try:
            named = sorted(set(json.loads((folder / index).read_text())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingsError(f"{field}: {uri}/{index}: not an index of weight files: {error!r}") from error
        absent = [name for name in named if name not in listed]
        if absent:
            raise SettingsError(
                f"{field}: {uri}/{index} names {absent[0]}, which is not there"
                + (f" (nor are {len(absent) - 1} more)" if absent[1:] else "")
                + "; upload the model again"
            )
        return named
    raise SettingsError(f"{field}: {uri}: no weights there; expected {' or '.join(_FORMS)}, whole or with an index")


def _check(uri: str, names: list[str], folder: Path) -> None:
    """Each safetensors file ends where its header says; where a manifest of ours gives SHA-256 sums, they agree."""
    manifest = folder / "manifest.json"
    sums: dict[str, Any] = json.loads(manifest.read_text()).get("files", {}) if manifest.exists() else {}

    def check(name: str) -> None:
        path, wrong = folder / name, ""
        if name.endswith(".safetensors"):
            wrong = _cut_short(path)
        if not wrong and name in sums and sha256_of(path)[0] != sums[name]:
            wrong = "its SHA-256 is not the manifest's"
        if wrong:
            path.unlink()
            raise StorageError(f"{uri}/{name}: damaged: {wrong}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(check, names))


def _cut_short(path: Path) -> str:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if length > size:
            return "not a safetensors file"
        try:
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError):
            return "its header cannot be read"
    return "" if 8 + length + end == size else f"{size} bytes, and its header describes {8 + length + end}"


def _shown(uri: str) -> Callable[[int, int], None]:
    began = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SHOW_EVERY_S or (done == total and last > began):
            last = now
            rate = done / 1e6 / (now - began)
            print(
                f"fetching {uri}: {done / 1e9:.1f} of {total / 1e9:.1f} GB, {rate:.0f} MB/s",
                file=sys.stderr,
                flush=True,
            )

    return show
