"""One rank's file of a checkpoint: written as a stream without a copy, read by range, every byte read is checked.

A shard is an ordinary safetensors file. Its note keeps a SHA-256 of every 2 MiB, so that whoever needs a part reads
that part alone and still knows that it is what was written. Ranks in the same layout as before read their own shard
once; in another layout each reads the stretches that are now its own.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from llava import storage
from llava.errors import SettingsError, StorageError, StoreAwayError
from llava.storage.streaming import Sink
from llava.training.fragments import MOMENTS, Fragment
from llava.training.snapshots import Slice, Snapshot, tensors_of

KINDS = ("master", *MOMENTS)
CHUNK_BYTES = 2 << 20  # at each seam between two ranks' parts both read a chunk; each chunk costs 67 bytes of note
_READ_BYTES = 64 << 20
_READS_AT_ONCE = 4


class Shard(BaseModel):
    """What a rank wrote.

    Attributes:
        header_bytes: where the tensors begin; they follow in the order of `slices`, of each all `KINDS`, in fp32.
        chunks: SHA-256 of each `chunk_bytes` of the file, the last one shorter.
    """

    model_config = ConfigDict(extra="forbid")

    save_id: str
    file: str
    size: int
    header_bytes: int
    chunk_bytes: int
    chunks: list[str]
    slices: list[Slice]


def write_shard(folder: str, rank: int, snapshot: Snapshot, save_id: str) -> None:
    """Write a rank's slices, and then the note that says they are there.

    Raises:
        StorageError: as `storage.open_writer`.
    """
    name = f"fragments-{rank:05d}.safetensors"
    header = _header(snapshot.tensors)
    size = len(header) + 4 * sum(tensor.numel() for tensor in snapshot.tensors.values())
    with storage.open_writer(storage.join(folder, name), size) as sink:
        hashed = _Hashed(sink)
        hashed.write(memoryview(header))
        for tensor in snapshot.tensors.values():
            values: Any = tensor.numpy()
            hashed.write(memoryview(values).cast("B"))
    shard = Shard(
        save_id=save_id,
        file=name,
        size=size,
        header_bytes=len(header),
        chunk_bytes=CHUNK_BYTES,
        chunks=hashed.digests(),
        slices=snapshot.slices,
    )
    storage.write_json(storage.join(folder, f"fragments-{rank:05d}.json"), shard.model_dump(mode="json"), indent=None)


def _header(tensors: dict[str, torch.Tensor]) -> bytes:
    """The safetensors header: 8 bytes of length, then JSON, padded so that the tensors are aligned."""
    entries: dict[str, dict[str, object]] = {}
    end = 0
    for key, tensor in tensors.items():
        assert tensor.dtype == torch.float32 and tensor.dim() == 1
        entries[key] = {"dtype": "F32", "shape": [tensor.numel()], "data_offsets": [end, end + 4 * tensor.numel()]}
        end += 4 * tensor.numel()
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


class _Hashed:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._done: list[str] = []
        self._chunk = hashlib.sha256()
        self._filled = 0

    def write(self, data: memoryview) -> None:
        while data:
            part = data[: CHUNK_BYTES - self._filled]
            self._chunk.update(part)
            self._sink.write(part)
            self._filled += len(part)
            data = data[len(part) :]
            if self._filled == CHUNK_BYTES:
                self._close_chunk()

    def digests(self) -> list[str]:
        if self._filled:
            self._close_chunk()
        return self._done

    def _close_chunk(self) -> None:
        self._done.append(self._chunk.hexdigest())
        self._chunk, self._filled = hashlib.sha256(), 0


@dataclass(frozen=True)
class _Target:
    """Bytes `start .. end` of a shard's file go into `tensor` (flat fp32)."""

    start: int
    end: int
    tensor: torch.Tensor


def restore(fragments: Sequence[Fragment], folder: str, shards: Sequence[Shard], where: str) -> None:
    """Fill fragments from a checkpoint of any world size and ZeRO stage, reading no more of it than they need.

    Raises:
        SettingsError: the checkpoint is of other parameters than those being trained, or does not cover them all.
        StorageError: a file is missing or differs from what was written; the message names it.
    """
    targets = _targets(fragments, shards, where)
    for shard in shards:
        if targets[shard.file]:
            _read(folder, shard, targets[shard.file])


def planned_reads(
    fragments: Sequence[Fragment], shards: Sequence[Shard], where: str = "checkpoint"
) -> list[tuple[str, int, int]]:
    """(file, start, end) of everything that `restore` will read; no values are touched."""
    targets = _targets(fragments, shards, where)
    return [
        (shard.file, start, end)
        for shard in shards
        for start, end in _stretches(shard, sorted(targets[shard.file], key=lambda target: target.start))
    ]


def _targets(fragments: Sequence[Fragment], shards: Sequence[Shard], where: str) -> dict[str, list[_Target]]:
    pieces: dict[str, list[tuple[Slice, Shard, int]]] = {}
    for shard in shards:
        at = shard.header_bytes
        for piece in shard.slices:
            pieces.setdefault(piece.name, []).append((piece, shard, at))
            at += 4 * piece.numel * len(KINDS)
    targets: dict[str, list[_Target]] = {shard.file: [] for shard in shards}
    for fragment in fragments:
        if fragment.name not in pieces:
            raise SettingsError(f"{where}: has no parameter {fragment.name}; it was made by another recipe")
        filled = 0
        for piece, shard, at in pieces[fragment.name]:
            if piece.shape != fragment.shape:
                raise SettingsError(
                    f"{where}: {fragment.name} has shape {list(piece.shape)}, the model {list(fragment.shape)}"
                )
            low = max(piece.start, fragment.start)
            high = min(piece.start + piece.numel, fragment.start + fragment.numel)
            if low >= high:
                continue
            for number, tensor in enumerate(tensors_of(fragment).values()):
                start = at + 4 * (piece.numel * number + low - piece.start)
                view = tensor[low - fragment.start : high - fragment.start]
                targets[shard.file].append(_Target(start, start + 4 * (high - low), view))
            filled += high - low
        if filled != fragment.numel:
            raise SettingsError(f"{where}: covers {filled} of {fragment.numel} elements of {fragment.name}")
    return targets


def _read(folder: str, shard: Shard, targets: Sequence[_Target]) -> None:
    """Read each chunk that a target lies in, once, and copy the targets out; a bounded number of reads at a time."""
    place = storage.join(folder, shard.file)
    ordered = sorted(targets, key=lambda target: target.start)
    stretches = list(_stretches(shard, ordered))
    first = 0  # of the targets that may still have bytes to come
    with ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="llava-resume") as pool:
        waiting: deque[tuple[int, Future[bytes]]] = deque()
        upcoming = iter(stretches)
        try:
            while True:
                while len(waiting) < _READS_AT_ONCE and (stretch := next(upcoming, None)):
                    waiting.append((stretch[0], pool.submit(_checked, place, shard, *stretch)))
                if not waiting:
                    return
                start, future = waiting.popleft()
                data = future.result()
                end = start + len(data)
                while first < len(ordered) and ordered[first].end <= start:
                    first += 1
                for target in ordered[first:]:
                    if target.start >= end:
                        break
                    _copy(target, start, data)
        finally:
            for _, future in waiting:
                future.cancel()


def _stretches(shard: Shard, ordered: Sequence[_Target]) -> Iterator[tuple[int, int]]:
    """(start, end) of runs of whole chunks that hold the targets, each of at most `_READ_BYTES`."""
    size, last = shard.chunk_bytes, -1
    numbers: list[int] = []
    for target in ordered:
        for number in range(max(target.start // size, last + 1), (target.end - 1) // size + 1):
            numbers.append(number)
            last = number
    most = max(1, _READ_BYTES // size)
    begin = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1 or at - begin == most:
            yield numbers[begin] * size, min((numbers[at - 1] + 1) * size, shard.size)
            begin = at


def _checked(place: str, shard: Shard, start: int, end: int) -> bytes:
    try:
        data = storage.read_range(place, start, end - start)
    except StoreAwayError:
        raise
    except StorageError as error:
        raise StorageError(f"damaged or missing: {error}") from error
    for offset in range(0, len(data), shard.chunk_bytes):
        number = (start + offset) // shard.chunk_bytes
        found = hashlib.sha256(memoryview(data)[offset : offset + shard.chunk_bytes]).hexdigest()
        if found != shard.chunks[number]:
            raise StorageError(
                f"{place}: damaged: bytes from {number * shard.chunk_bytes} on have SHA-256 {found[:12]}..., but "
                f"{shard.chunks[number][:12]}... was written"
            )
    return data


def _copy(target: _Target, start: int, data: bytes) -> None:
    low, high = max(target.start, start), min(target.end, start + len(data))
    # Chunks are multiples of 4 bytes and so are offsets, so no value is cut in two.
    values = torch.frombuffer(bytearray(memoryview(data)[low - start : high - start]), dtype=torch.float32)
    target.tensor[(low - target.start) // 4 : (high - target.start) // 4].copy_(values)
