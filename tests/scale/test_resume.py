"""Checkpoints at the true sizes of 7B and 13B: what a node reads to resume, what a save holds in memory and on disk."""

from __future__ import annotations

import pytest
import torch

from llava.training import snapshots
from llava.training.checkpoint_shards import CHUNK_BYTES, Shard, planned_reads
from llava.training.fragments import Fragment
from llava.training.snapshots import Slice, owners_of
from tests.scale.shapes import fragments_of, true_model

RANKS_A_NODE = 8


def shards_of(shapes: dict[str, tuple[int, ...]], world_size: int, zero_stage: int) -> list[Shard]:
    """The notes of a checkpoint that `world_size` ranks wrote, sums left out."""
    found = []
    for rank in range(world_size):
        fragments = mine(shapes, rank, world_size, zero_stage)
        slices = [Slice(name=f.name, shape=f.shape, start=f.start, numel=f.numel) for f in fragments]
        header = 200 * 3 * len(slices)
        size = header + 12 * sum(f.numel for f in fragments)
        found.append(
            Shard(
                save_id="one", file=f"fragments-{rank:05d}.safetensors", size=size, header_bytes=header,
                chunk_bytes=CHUNK_BYTES, chunks=[""] * -(-size // CHUNK_BYTES), slices=slices,
            )
        )  # fmt: skip
    return found


def mine(shapes: dict[str, tuple[int, ...]], rank: int, world_size: int, zero_stage: int) -> list[Fragment]:
    fragments = fragments_of(shapes, rank, world_size, zero_stage)
    owners = owners_of(fragments, world_size)
    return [f for f, owner in zip(fragments, owners, strict=True) if owner in (None, rank)]


@pytest.mark.parametrize("size", ["7b", "13b"])
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.parametrize(
    ("before", "now"),
    [
        ((1, 0), (1, 0)), ((2, 2), (2, 2)), ((8, 2), (8, 2)), ((8, 3), (8, 3)), ((8, 0), (8, 0)),
        ((8, 2), (2, 3)), ((2, 3), (8, 2)), ((8, 3), (1, 0)),
    ],
)  # fmt: skip
def test_a_node_reads_a_checkpoint_once(size: str, stage: str, before: tuple[int, int], now: tuple[int, int]) -> None:
    shapes = true_model(size).trained[stage]
    shards = shards_of(shapes, *before)
    checkpoint = sum(shard.size for shard in shards)
    parameters = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert checkpoint >= 12 * parameters
    world_size, zero_stage = now
    reads = [planned_reads(mine(shapes, rank, world_size, zero_stage), shards) for rank in range(world_size)]
    total = sum(end - start for rank in reads for _, start, end in rank)
    # At a seam between two ranks' parts both read a chunk: of a projector's few parts that is more than a tenth.
    seams = 32 * CHUNK_BYTES
    assert 12 * parameters <= total <= 1.1 * checkpoint + (seams if stage == "pretrain" else 0)
    most = max(sum(end - start for _, start, end in rank) for rank in reads)
    if stage == "finetune":
        assert most <= 1.1 * checkpoint / world_size + 4 * 525_336_576  # no ZeRO: a tensor cannot be split
        requests = sum(len(rank) for rank in reads)
        assert requests <= 2.5 * checkpoint / (64 << 20) + 4 * len(shapes)
    # In the same layout every rank reads its own file and no other.
    if before == now:
        assert all({file for file, _, _ in rank} <= {f"fragments-{r:05d}.safetensors"} for r, rank in enumerate(reads))


@pytest.mark.parametrize("size", ["7b", "13b"])
def test_a_save_takes_twelve_bytes_a_parameter_over_the_node_and_no_scratch(
    size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = true_model(size).trained["finetune"]
    parameters = sum(torch.Size(shape).numel() for shape in shapes.values())
    taken: list[int] = []
    real = torch.empty

    def empty(numel: int, **options: object) -> torch.Tensor:
        # Page-locked blocks are rounded up to a power of two.
        taken.append(1 << (4 * numel - 1).bit_length())
        return real(numel, dtype=torch.float32, device="meta")

    for zero_stage in (2, 3):
        taken.clear()
        for rank in range(RANKS_A_NODE):
            fragments = mine(shapes, rank, RANKS_A_NODE, zero_stage)
            buffer = snapshots.HostBuffer()
            sizes = [f.numel for f in fragments for _ in range(3)]
            with monkeypatch.context() as patch:
                patch.setattr(torch, "empty", empty)
                buffer.views(sizes, pinned=True)
                once = len(taken)
                buffer.views(sizes, pinned=True)  # the next save: nothing more
                assert len(taken) == once or not sizes
            taken.append(0)
        assert 12 * parameters <= sum(taken) <= 1.35 * 12 * parameters
