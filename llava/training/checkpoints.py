"""Checkpoints in a folder or an object store: complete or absent, checked before use, written while training continues.

Layout below the checkpoints URI, one folder a checkpoint:

    step-00000120/
        fragments-00000.safetensors   rank 0's slices of master weights and moments, named `exp_avg/<parameter>@<start>`
        fragments-00000.json          its size and SHA-256 sums, which save it is of, and what its slices are
        ...                           one pair a rank
        manifest.json                 written last by rank 0: step, world size, run state, every file's SHA-256 sums

A folder without a manifest is a save that was interrupted: it is not a checkpoint. Nothing is pickled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from llava import storage
from llava.errors import SettingsError, StorageError
from llava.training import checkpoint_shards
from llava.training.checkpoint_shards import Shard, write_shard
from llava.training.fragments import Fragment
from llava.training.snapshots import Snapshot
from llava.validation import validate

FORMAT_VERSION = 2
WAIT_FOR_RANKS_S = 1800.0


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

    def rehearse(self, snapshot: Snapshot) -> None:
        """Write a snapshot as this rank's part of a save that is never completed.

        Raises:
            StorageError: it cannot be written: a full disk, a quota, no permission.
        """
        try:
            write_shard(storage.join(self.uri, folder_name(0)), self.rank, snapshot, self.save_id)
        except StorageError as error:
            raise type(error)(f"{self.uri}: no checkpoint can be written there: {error}") from error

    def forget_rehearsal(self) -> None:
        """Delete what all ranks wrote in `rehearse`; for one rank alone."""
        storage.delete(storage.join(self.uri, folder_name(0)))

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
        except StorageError as error:  # a full disk, a place that is no folder, a store that is away
            self._failure = type(error)(f"{self.uri}: the checkpoint of step {step} cannot be written: {error}")
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


def collect_leftovers(uri: str) -> list[str]:
    """Delete what interrupted saves and deletes left below `uri`: folders without a manifest, and unfinished uploads.

    For one rank alone, at a start, before anything is saved. Returns the folders' names.
    """
    names = {item.path.partition("/")[0] for item in storage.list_files(uri) if "/" in item.path}
    if not storage.is_remote(uri):  # files still being written are not listed
        names |= {path.name for path in storage.local_path(uri).glob("step-*") if path.is_dir()}
    whole = {folder_name(step) for step in list_steps(uri)}
    left = sorted(name for name in names - whole if name.startswith("step-") and name[5:].isdigit())
    for name in left:
        storage.delete(storage.join(uri, name))
    storage.delete_unfinished(uri)
    return left


def read_manifest(uri: str, step: int) -> CheckpointManifest:
    """What a checkpoint is made of.

    Raises:
        StorageError: it cannot be read.
        SettingsError: of a format this version does not read.
    """
    source = storage.join(uri, folder_name(step), "manifest.json")
    data = storage.read_json(source)
    version = data.get("format_version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        raise SettingsError(
            f"{source}: format {version}; this version reads {FORMAT_VERSION}; resume with the version that "
            "wrote it, or delete the checkpoints to begin anew"
        )
    return validate(CheckpointManifest, data, source)


def restore(fragments: Sequence[Fragment], uri: str, manifest: CheckpointManifest) -> None:
    """Fill fragments from the checkpoint `manifest` describes; see `checkpoint_shards.restore`."""
    folder = storage.join(uri, folder_name(manifest.step))
    checkpoint_shards.restore(fragments, folder, manifest.shards, f"checkpoint of step {manifest.step}")


def _wait_for_shard(folder: str, rank: int, save_id: str) -> Shard:
    place = storage.join(folder, f"fragments-{rank:05d}.json")
    deadline = time.monotonic() + WAIT_FOR_RANKS_S
    pause = 0.02
    while True:
        try:
            shard = validate(Shard, storage.read_json(place), place)
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
