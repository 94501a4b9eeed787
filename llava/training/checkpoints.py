"""Checkpoints in a folder or an object store: complete or absent, checked before use, written while training continues.

Layout below the checkpoints URI, one folder a checkpoint:

    step-00000120/
        fragments-00000.safetensors   rank 0's slices of master weights and moments, named `exp_avg/<parameter>@<start>`
        fragments-00000.json          its size and SHA-256, which save it is of, and what its slices are
        ...                           one pair a rank
        manifest.json                 written last by rank 0: step, world size, run state, every file's SHA-256

A folder without a manifest is a save that was interrupted: it is not a checkpoint. Nothing is pickled.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save_file

from llava import storage
from llava.config import validate
from llava.errors import SettingsError, StorageError
from llava.manifest import sha256_of
from llava.training.fragments import MOMENTS, Fragment

FORMAT_VERSION = 1
KINDS = ("master", *MOMENTS)
WAIT_FOR_RANKS_S = 1800.0


class Slice(BaseModel):
    """One fragment in a shard: elements `start .. start + numel` of the flattened parameter `name`."""

    name: str
    shape: tuple[int, ...]
    start: int
    numel: int


class Shard(BaseModel):
    """One rank's file."""

    model_config = ConfigDict(extra="forbid")

    save_id: str
    file: str
    size: int
    sha256: str
    slices: list[Slice]


class CheckpointManifest(BaseModel):
    """A whole checkpoint. `state` is the run's own: history, what it was made from (`state.RunState`)."""

    model_config = ConfigDict(extra="forbid")

    format_version: int = FORMAT_VERSION
    step: int
    world_size: int
    zero_stage: int
    written_unix: float
    shards: list[Shard]
    state: dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """Copies of a rank's fragments in host memory, taken between two steps."""

    slices: list[Slice]
    tensors: dict[str, torch.Tensor]


def take_snapshot(fragments: list[Fragment], rank: int, world_size: int) -> Snapshot:
    """Copy what this rank has to write. Parameters that every rank holds whole are dealt out in turn."""
    chosen = [f for index, f in enumerate(fragments) if not f.shared or index % world_size == rank]
    tensors: dict[str, torch.Tensor] = {}
    for fragment in chosen:
        for kind, tensor in _tensors_of(fragment).items():
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            tensors[_key(kind, fragment.name, fragment.start)] = copy.copy_(tensor, non_blocking=True)
    if any(f.master.is_cuda for f in chosen):
        torch.cuda.synchronize()
    return Snapshot([Slice(name=f.name, shape=f.shape, start=f.start, numel=f.numel) for f in chosen], tensors)


class CheckpointWriter:
    """Writes one checkpoint at a time in a thread of its own; the next save waits for the one before.

    Args:
        uri: the checkpoints folder.
        save_id: the same on all ranks of this process group and new for every start, so that shards left behind by a
            killed run are never mistaken for this one's.
        keep: complete checkpoints to keep.
    """

    def __init__(self, uri: str, *, rank: int, world_size: int, zero_stage: int, save_id: str, keep: int) -> None:
        self.uri, self.rank, self.world_size, self.zero_stage = uri, rank, world_size, zero_stage
        self.save_id, self.keep = save_id, keep
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self.last_seconds = 0.0

    def save(self, step: int, snapshot: Snapshot, state: dict[str, Any]) -> None:
        """Start writing; `state` counts on rank 0 only.

        Raises:
            StorageError: the save before this one failed.
        """
        self.wait()
        self._thread = threading.Thread(
            target=self._guarded, args=(step, snapshot, state), name=f"checkpoint-{step}", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is being written.

        Raises:
            StorageError: the save failed; training must not continue as if it had not.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _guarded(self, step: int, snapshot: Snapshot, state: dict[str, Any]) -> None:
        try:
            started = time.monotonic()
            self._write(step, snapshot, state)
            self.last_seconds = time.monotonic() - started
        except OSError as error:  # a full disk, a place that is no folder
            self._failure = StorageError(f"{self.uri}: the checkpoint of step {step} cannot be written: {error}")
        except BaseException as error:  # handed to the training thread by wait()
            self._failure = error

    def _write(self, step: int, snapshot: Snapshot, state: dict[str, Any]) -> None:
        folder = storage.join(self.uri, folder_name(step))
        write_shard(folder, self.rank, snapshot, self.save_id)
        if self.rank:
            return
        shards = [_wait_for_shard(folder, rank, self.save_id) for rank in range(self.world_size)]
        manifest = CheckpointManifest(
            step=step,
            world_size=self.world_size,
            zero_stage=self.zero_stage,
            written_unix=time.time(),
            shards=shards,
            state=state,
        )
        storage.write_json(storage.join(folder, "manifest.json"), manifest.model_dump(mode="json"), indent=None)
        for old in list_steps(self.uri)[: -self.keep]:
            remove(self.uri, old)


def folder_name(step: int) -> str:
    """`step-00000123`."""
    return f"step-{step:08d}"


def list_steps(uri: str) -> list[int]:
    """Steps of the complete checkpoints below `uri`, ascending."""
    found = []
    for item in storage.list_files(uri):
        folder, _, name = item.path.partition("/")
        if name == "manifest.json" and folder.startswith("step-") and folder[5:].isdigit():
            found.append(int(folder[5:]))
    return sorted(found)


def remove(uri: str, step: int) -> None:
    """Delete a checkpoint, manifest first: it is absent from the first moment on."""
    folder = storage.join(uri, folder_name(step))
    storage.delete(storage.join(folder, "manifest.json"))
    storage.delete(folder)


def write_shard(folder: str, rank: int, snapshot: Snapshot, save_id: str) -> None:
    """Write a rank's slices, and then the note that says they are there."""
    name = f"fragments-{rank:05d}.safetensors"
    with tempfile.TemporaryDirectory(prefix="llava-checkpoint-") as scratch:
        if storage.is_remote(folder):
            path = Path(scratch) / name
        else:
            path = storage.local_path(storage.join(folder, name))
            path.parent.mkdir(parents=True, exist_ok=True)
        save_file(snapshot.tensors, path)
        digest, size = sha256_of(path)
        storage.upload(path, storage.join(folder, name))
    shard = Shard(save_id=save_id, file=name, size=size, sha256=digest, slices=snapshot.slices)
    storage.write_json(storage.join(folder, f"fragments-{rank:05d}.json"), shard.model_dump(mode="json"), indent=None)


def read_checkpoint(uri: str, step: int, cache: Path) -> tuple[CheckpointManifest, list[Path]]:
    """Fetch a checkpoint (where it is remote) and check every byte of it.

    Returns:
        The manifest and the local shard files, in its order.

    Raises:
        StorageError: a file is missing or differs from what was written; the message names it.
        SettingsError: of a format this version does not read.
    """
    folder = storage.join(uri, folder_name(step))
    source = storage.join(folder, "manifest.json")
    manifest = validate(CheckpointManifest, storage.read_json(source), source)
    if manifest.format_version != FORMAT_VERSION:
        raise SettingsError(f"{source}: format {manifest.format_version}; this version reads {FORMAT_VERSION}")
    paths = []
    for shard in manifest.shards:
        place = storage.join(folder, shard.file)
        path = storage.as_local(place, cache / folder_name(step))
        digest, size = sha256_of(path)
        if (digest, size) != (shard.sha256, shard.size):
            raise StorageError(
                f"{place}: damaged: {size} bytes with SHA-256 {digest[:12]}..., but {shard.size} bytes with "
                f"{shard.sha256[:12]}... were written"
            )
        paths.append(path)
    return manifest, paths


def restore(fragments: list[Fragment], manifest: CheckpointManifest, paths: list[Path]) -> None:
    """Fill this rank's fragments from a checkpoint of any world size and ZeRO stage.

    Raises:
        SettingsError: the checkpoint is of other parameters than those being trained, or does not cover them all.
    """
    from safetensors import safe_open

    pieces: dict[str, list[tuple[Slice, Path]]] = {}
    for shard, path in zip(manifest.shards, paths, strict=True):
        for piece in shard.slices:
            pieces.setdefault(piece.name, []).append((piece, path))
    opened: dict[Path, Any] = {path: safe_open(path, framework="pt") for path in paths}
    where = f"checkpoint of step {manifest.step}"
    for fragment in fragments:
        if fragment.name not in pieces:
            raise SettingsError(f"{where}: has no parameter {fragment.name}; it was made by another recipe")
        filled = 0
        for piece, path in pieces[fragment.name]:
            if piece.shape != fragment.shape:
                raise SettingsError(
                    f"{where}: {fragment.name} has shape {list(piece.shape)}, the model {list(fragment.shape)}"
                )
            low = max(piece.start, fragment.start)
            high = min(piece.start + piece.numel, fragment.start + fragment.numel)
            if low >= high:
                continue
            for kind, target in _tensors_of(fragment).items():
                source = opened[path].get_slice(_key(kind, piece.name, piece.start))[
                    low - piece.start : high - piece.start
                ]
                target[low - fragment.start : high - fragment.start].copy_(source)
            filled += high - low
        if filled != fragment.numel:
            raise SettingsError(f"{where}: covers {filled} of {fragment.numel} elements of {fragment.name}")


def _tensors_of(fragment: Fragment) -> dict[str, torch.Tensor]:
    return {"master": fragment.master, **fragment.moments}


def _key(kind: str, name: str, start: int) -> str:
    return f"{kind}/{name}@{start}"


def _wait_for_shard(folder: str, rank: int, save_id: str) -> Shard:
    place = storage.join(folder, f"fragments-{rank:05d}.json")
    deadline = time.monotonic() + WAIT_FOR_RANKS_S
    pause = 0.02
    while True:
        try:
            shard = validate(Shard, json.loads(storage.read_bytes(place)), place)
            if shard.save_id == save_id:
                return shard
        except StorageError:
            pass
        if time.monotonic() > deadline:
            raise StorageError(
                f"{place}: rank {rank} did not write its part of the checkpoint within {WAIT_FOR_RANKS_S:.0f} s"
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 2.0)
