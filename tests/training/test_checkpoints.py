"""Checkpoints: any layout reads back any other, damage is found, interrupted saves do not count."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava import storage
from llava.errors import SettingsError, StorageError
from llava.training import checkpoint_shards, checkpoints
from llava.training.checkpoint_shards import KINDS, write_shard
from llava.training.checkpoints import CheckpointWriter
from llava.training.fragments import MOMENTS, Fragment
from llava.training.snapshots import HostBuffer, Snapshot, owners_of, take_snapshot
from tests.s3_server import S3Server

SHAPES = {"a.weight": (3, 5), "b.bias": (4,), "c.weight": (2, 2, 2)}


def values(name: str, kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 * list(SHAPES).index(name) + KINDS.index(kind))
    numel = torch.Size(SHAPES[name]).numel()
    return torch.randn(numel, generator=generator)


def cut(cuts: list[list[int]], rank: int, filled: bool) -> list[Fragment]:
    """Rank `rank`'s fragments when parameter i is cut at `cuts[i]` (positions inside it, ascending)."""
    made = []
    for (name, shape), inside in zip(SHAPES.items(), cuts, strict=True):
        numel = torch.Size(shape).numel()
        edges = [0, *sorted(min(c, numel) for c in inside), numel]
        start, end = edges[rank], edges[rank + 1]
        if start == end:
            continue
        tensors = [values(name, kind)[start:end].clone() for kind in KINDS]
        if not filled:
            tensors = [torch.full((end - start,), torch.nan) for _ in tensors]
        made.append(
            Fragment(name, shape, start, end - start, tensors[0], dict(zip(MOMENTS, tensors[1:], strict=True)), False)
        )
    return made


def write(uri: str, cuts: list[list[int]], step: int = 3, keep: int = 2, save_id: str = "one") -> None:
    world = len(cuts[0]) + 1
    for rank in reversed(range(world)):  # rank 0 waits for the others
        writer = CheckpointWriter(uri, rank=rank, world_size=world, zero_stage=1, save_id=save_id, keep=keep)
        writer.save(step, take_snapshot(cut(cuts, rank, filled=True), rank, world), {"note": step})
        writer.wait()


def read_back(uri: str, step: int = 3) -> None:
    fragments = cut([[], [], []], 0, filled=False)
    checkpoints.restore(fragments, uri, checkpoints.read_manifest(uri, step))
    check(fragments)


def check(fragments: list[Fragment]) -> None:
    for fragment in fragments:
        for kind, tensor in {"master": fragment.master, **fragment.moments}.items():
            expected = values(fragment.name, kind)[fragment.start : fragment.start + fragment.numel]
            assert torch.equal(tensor, expected), (fragment.name, kind)


layouts = st.integers(0, 3).flatmap(
    lambda inner: st.lists(st.lists(st.integers(0, 15), min_size=inner, max_size=inner), min_size=3, max_size=3)
)


@settings(max_examples=25, deadline=None)
@given(before=layouts, after=layouts)
def test_any_layout_reads_back_any_other(
    tmp_path_factory: pytest.TempPathFactory, before: list[list[int]], after: list[list[int]]
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    write(str(folder), before)
    manifest = checkpoints.read_manifest(str(folder), 3)
    for rank in range(len(after[0]) + 1):
        fragments = cut(after, rank, filled=False)
        checkpoints.restore(fragments, str(folder), manifest)
        check(fragments)


def test_whole_parameters_are_dealt_out_over_the_ranks() -> None:
    sizes = [1, 100, 2, 90, 3]  # an embedding and a head among norms: in turn, one rank would write nearly all
    fragments = [
        Fragment(f"p{i}", (n,), 0, n, torch.ones(n), {m: torch.ones(n) for m in MOMENTS}, True)
        for i, n in enumerate(sizes)
    ]
    shares = [[s.name for s in take_snapshot(fragments, rank, 2).slices] for rank in range(2)]
    assert shares == [["p1"], ["p0", "p2", "p3", "p4"]]
    assert owners_of(fragments, 2) == [1, 0, 1, 1, 1]


def test_a_snapshot_does_not_follow_later_steps() -> None:
    fragment = cut([[], [], []], 0, filled=True)[0]
    snapshot = take_snapshot([fragment], 0, 1)
    fragment.master.add_(1.0)
    assert torch.equal(snapshot.tensors["master/a.weight@0"], values("a.weight", "master"))


@pytest.mark.parametrize("fault", ["flip", "cut", "gone"])
def test_damage_is_found(tmp_path: Path, fault: str) -> None:
    write(str(tmp_path), [[7], [2], [4]])
    victim = tmp_path / "step-00000003" / "fragments-00001.safetensors"
    data = bytearray(victim.read_bytes())
    if fault == "flip":
        data[-5] ^= 1
        victim.write_bytes(data)
    elif fault == "cut":
        victim.write_bytes(data[:-1])
    else:
        victim.unlink()
    with pytest.raises(StorageError, match="fragments-00001"):
        read_back(str(tmp_path))


def test_a_save_without_its_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    write(str(tmp_path), [[], [], []], step=3)
    write_shard(str(tmp_path / "step-00000009"), 0, take_snapshot(cut([[], [], []], 0, True), 0, 1), "x")
    assert checkpoints.list_steps(str(tmp_path)) == [3]


def test_shards_of_a_killed_run_are_not_taken_for_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(tmp_path / "step-00000003")
    snapshot = take_snapshot(cut([[7], [2], [4]], 1, True), 1, 2)
    write_shard(folder, 1, snapshot, "of the killed run")
    monkeypatch.setattr(checkpoints, "WAIT_FOR_RANKS_S", 0.2)
    writer = CheckpointWriter(str(tmp_path), rank=0, world_size=2, zero_stage=1, save_id="of this run", keep=2)
    writer.save(3, take_snapshot(cut([[7], [2], [4]], 0, True), 0, 2), {})
    with pytest.raises(StorageError, match="rank 1 did not write"):
        writer.wait()
    assert checkpoints.list_steps(str(tmp_path)) == []


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        write(str(tmp_path), [[], [], []], step=step, keep=2)
    assert checkpoints.list_steps(str(tmp_path)) == [6, 8]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000006", "step-00000008"]


def test_another_model_is_refused(tmp_path: Path) -> None:
    write(str(tmp_path), [[], [], []])
    manifest = checkpoints.read_manifest(str(tmp_path), 3)
    moments = {m: torch.zeros(15) for m in MOMENTS}
    with pytest.raises(SettingsError, match=r"no parameter z\.weight"):
        checkpoints.restore(
            [Fragment("z.weight", (15,), 0, 15, torch.zeros(15), moments, False)], str(tmp_path), manifest
        )
    with pytest.raises(SettingsError, match=r"a\.weight has shape \[3, 5\], the model \[5, 3\]"):
        checkpoints.restore(
            [Fragment("a.weight", (5, 3), 0, 15, torch.zeros(15), moments, False)], str(tmp_path), manifest
        )


def test_another_format_is_refused(tmp_path: Path) -> None:
    write(str(tmp_path), [[], [], []])
    path = tmp_path / "step-00000003" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
    with pytest.raises(SettingsError, match="format 99; this version reads 2"):
        checkpoints.read_manifest(str(tmp_path), 3)


def test_a_failed_save_reaches_the_training_thread(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    writer = CheckpointWriter(str(tmp_path / "file"), rank=0, world_size=1, zero_stage=0, save_id="x", keep=1)
    writer.save(1, Snapshot([], {"master/a@0": torch.ones(1)}), {})
    with pytest.raises(StorageError, match="the checkpoint of step 1 cannot be written"):
        writer.wait()


@pytest.mark.slow
def test_checkpoints_in_a_real_store(moto_s3: S3Server, tmp_path: Path) -> None:
    uri = f"{moto_s3.uri}/run/checkpoints"
    for step in (1, 2, 3):
        write(uri, [[7], [2], [4]], step=step, keep=2)
    assert checkpoints.list_steps(uri) == [2, 3]
    assert checkpoints.read_manifest(uri, 3).state == {"note": 3}
    read_back(uri)
    storage.write_bytes(f"{uri}/step-00000003/fragments-00000.safetensors", b"rot")
    with pytest.raises(StorageError, match="damaged"):
        read_back(uri)


@pytest.mark.slow
def test_a_shard_is_read_by_range_and_each_byte_once(moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_shards, "CHUNK_BYTES", 64)
    uri = f"{moto_s3.uri}/run/checkpoints"
    write(uri, [[7], [2], [4]])
    manifest = checkpoints.read_manifest(uri, 3)
    monkeypatch.setattr(checkpoint_shards, "_READ_BYTES", 128)
    reads: list[tuple[str, int, int]] = []
    plain = storage.read_range

    def counted(place: str, start: int, length: int) -> bytes:
        reads.append((place, start, length))
        return plain(place, start, length)

    monkeypatch.setattr(storage, "read_range", counted)
    for rank in range(2):  # the layout it was written in: each rank its own file, nothing of the other's
        reads.clear()
        fragments = cut([[7], [2], [4]], rank, filled=False)
        checkpoints.restore(fragments, uri, manifest)
        check(fragments)
        assert {place.rpartition("/")[2] for place, _, _ in reads} == {f"fragments-{rank:05d}.safetensors"}
        covered = sorted((start, start + length) for _, start, length in reads)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(covered))
        assert all(length <= 128 for _, _, length in reads)
        assert sum(length for _, _, length in reads) <= manifest.shards[rank].size
    reads.clear()
    for rank in range(4):
        fragments = cut([[3, 7, 9], [1, 2, 3], [2, 4, 6]], rank, filled=False)
        checkpoints.restore(fragments, uri, manifest)
        check(fragments)
    assert len(reads) > 4


def test_a_shard_is_an_ordinary_safetensors_file(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    write(str(tmp_path), [[7], [2], [4]])
    whole = load_file(tmp_path / "step-00000003" / "fragments-00000.safetensors")
    assert torch.equal(whole["exp_avg/a.weight@0"], values("a.weight", "exp_avg")[:7])
    assert (tmp_path / "step-00000003" / "fragments-00000.safetensors").stat().st_mode & 0o444 == 0o444


def test_one_buffer_serves_every_snapshot() -> None:
    buffer = HostBuffer()
    fragments = cut([[], [], []], 0, filled=True)
    first = take_snapshot(fragments, 0, 1, buffer)
    fragments[0].master.add_(1.0)
    second = take_snapshot(fragments, 0, 1, buffer)
    assert [t.data_ptr() for t in first.tensors.values()] == [t.data_ptr() for t in second.tensors.values()]
    assert torch.equal(second.tensors["master/a.weight@0"], values("a.weight", "master") + 1)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in second.tensors.values()}
    assert sum(storages.values()) == 12 * sum(f.numel for f in fragments)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["disk", "store"])
def test_what_interrupted_saves_left_is_collected(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    uri = str(tmp_path / "c") if place == "disk" else f"{request.getfixturevalue('moto_s3').uri}/c"
    write(uri, [[], [], []], step=3)
    write_shard(f"{uri}/step-00000009", 0, take_snapshot(cut([[], [], []], 0, True), 0, 1), "killed")
    storage.write_text(f"{uri}/row-check-1.json", "kept")
    if place == "disk":
        partial = tmp_path / "c" / "step-00000012" / ".llava-partial-x"
        partial.parent.mkdir()
        partial.write_bytes(b"half")
    left = checkpoints.collect_leftovers(uri)
    assert left == ["step-00000009", "step-00000012"][: 2 if place == "disk" else 1]
    assert {item.path.partition("/")[0] for item in storage.list_files(uri)} == {"step-00000003", "row-check-1.json"}
    if place == "disk":
        assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["row-check-1.json", "step-00000003"]
    read_back(uri)
