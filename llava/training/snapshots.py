"""A rank's part of a checkpoint, copied to host memory between two steps, into one buffer that every save uses again.

The buffer is page-locked where there is a GPU, so that copies run beside each other; torch rounds page-locked blocks up
to a power of two, so it is made of pieces of exactly that: 12 bytes a trained parameter and no more.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel

from llava.training.fragments import Fragment

PIECE_BYTES = 1 << 30


class Slice(BaseModel):
    """One fragment in a shard: elements `start .. start + numel` of the flattened parameter `name`."""

    name: str
    shape: tuple[int, ...]
    start: int
    numel: int


@dataclass(frozen=True)
class Snapshot:
    """Copies of a rank's fragments in host memory: of each slice its master and its moments, fp32, one after the other.

    Attributes:
        tensors: `<kind>/<parameter>@<start>` -> flat tensor, in the order in which a shard holds them.
    """

    slices: list[Slice]
    tensors: dict[str, torch.Tensor]


class HostBuffer:
    """Memory for snapshots, taken once and used again; a snapshot is good until the next is taken."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._views: list[torch.Tensor] = []

    def views(self, sizes: Sequence[int], pinned: bool) -> list[torch.Tensor]:
        """A flat fp32 tensor of each size (in elements)."""
        if list(sizes) != self._sizes:
            self._views = []  # frees what was there before more is taken
            self._views = _allocate(sizes, pinned)
            self._sizes = list(sizes)
        return self._views


def _allocate(sizes: Sequence[int], pinned: bool) -> list[torch.Tensor]:
    limit = PIECE_BYTES // 4
    pieces: list[int] = []  # elements of each
    places: list[tuple[int, int]] = []
    for size in sizes:
        if not pieces or pieces[-1] + size > limit:
            pieces.append(0)
        places.append((len(pieces) - 1, pieces[-1]))
        pieces[-1] += size
    memory = [torch.empty(size, dtype=torch.float32, pin_memory=pinned) for size in pieces]
    return [memory[piece][start : start + size] for (piece, start), size in zip(places, sizes, strict=True)]


def take_snapshot(fragments: list[Fragment], rank: int, world_size: int, buffer: HostBuffer | None = None) -> Snapshot:
    """Copy what this rank has to write. Parameters that every rank holds whole are dealt out by their size.

    Args:
        buffer: used again; its last snapshot must have been written. None: memory of its own.
    """
    owners = owners_of(fragments, world_size)
    chosen = [f for f, owner in zip(fragments, owners, strict=True) if owner in (None, rank)]
    parts = [(key_of(kind, f.name, f.start), tensor) for f in chosen for kind, tensor in tensors_of(f).items()]
    on_gpu = any(tensor.is_cuda for _, tensor in parts)
    views = (buffer or HostBuffer()).views([tensor.numel() for _, tensor in parts], on_gpu)
    for view, (_, tensor) in zip(views, parts, strict=True):
        view.copy_(tensor, non_blocking=True)
    if on_gpu:
        torch.cuda.synchronize()
    return Snapshot(
        [Slice(name=f.name, shape=f.shape, start=f.start, numel=f.numel) for f in chosen],
        {key: view for (key, _), view in zip(parts, views, strict=True)},
    )


def owners_of(fragments: list[Fragment], world_size: int) -> list[int | None]:
    """Of each fragment the rank that writes and reads it, or None where each rank has a part of its own.

    The largest goes first, always to the rank that has least: no rank has to write much more than its share.
    """
    owners: list[int | None] = [None] * len(fragments)
    loads = [(0, rank) for rank in range(world_size)]
    shared = [index for index, fragment in enumerate(fragments) if fragment.shared]
    for index in sorted(shared, key=lambda i: (-fragments[i].numel, i)):
        load, rank = heapq.heappop(loads)
        owners[index] = rank
        heapq.heappush(loads, (load + fragments[index].numel, rank))
    return owners


def tensors_of(fragment: Fragment) -> dict[str, torch.Tensor]:
    """Kind -> flat view, in the order in which a shard holds them."""
    return {"master": fragment.master, **fragment.moments}


def key_of(kind: str, name: str, start: int) -> str:
    """The name of a tensor in a shard."""
    return f"{kind}/{name}@{start}"
