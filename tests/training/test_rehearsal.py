"""Saves are tried before step 1 with real bytes: what cannot be written stops the run before it has cost anything."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from llava import storage
from llava.errors import SettingsError, StorageError
from llava.training import checkpoints, launch, rehearsal
from llava.training.checkpoints import CheckpointWriter
from llava.training.fragments import MOMENTS, Fragment
from llava.training.snapshots import HostBuffer, take_snapshot
from tests.conftest import TinyWorld
from tests.s3_server import S3Server
from tests.training.jobs import logged_steps, make_job, result_of, run_together, weights_of


def fragment(numel: int = 50_000) -> Fragment:
    tensors = [torch.randn(numel) for _ in range(1 + len(MOMENTS))]
    return Fragment("a.weight", (numel,), 0, numel, tensors[0], dict(zip(MOMENTS, tensors[1:], strict=True)), True)


def rehearse(uri: str) -> CheckpointWriter:
    writer = CheckpointWriter(uri, rank=0, world_size=1, zero_stage=0, save_id="one", keep=1)
    writer.rehearse(take_snapshot([fragment()], 0, 1, HostBuffer()))
    return writer


def test_a_rehearsed_checkpoint_is_whole_bytes_and_no_checkpoint(tmp_path: Path) -> None:
    uri = str(tmp_path / "checkpoints")
    writer = rehearse(uri)
    (shard,) = tmp_path.rglob("*.safetensors")
    assert shard.stat().st_size > 3 * 4 * 50_000
    assert checkpoints.list_steps(uri) == []
    writer.forget_rehearsal()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_rehearsal_killed_half_way_is_collected_like_a_save(rclone_s3: S3Server) -> None:
    uri = f"{rclone_s3.uri}/rehearsal/checkpoints"
    rehearse(uri)
    assert len(list(storage.list_files(uri))) == 2
    assert checkpoints.collect_leftovers(uri) == ["step-00000000"]
    assert list(storage.list_files(uri)) == []


def test_a_place_that_takes_no_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("not a folder")
    with pytest.raises(StorageError, match=r"checkpoints: no checkpoint can be written there"):
        rehearse(str(tmp_path / "checkpoints"))


def test_memory_that_is_not_there_is_the_user_s_to_add() -> None:
    """A petabyte of it: what torch says of a host's memory is one of its plain RuntimeErrors."""
    said = "a snapshot does not fit into memory: `llava plan`"
    with pytest.raises(SettingsError, match=said), rehearsal._enough_memory("a snapshot"):
        torch.empty(2**50, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shape"), rehearsal._enough_memory("a snapshot"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


@pytest.mark.slow
def test_a_run_rehearses_both_saves_and_is_as_without(
    tiny_world: TinyWorld, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks, partitioned weights, adapters: gathered, merged, snapshot written and gone; no trace in the result."""
    fields: dict[str, Any] = {"max_steps": 3, "zero_stage": 3, "lora": {"r": 4, "alpha": 8}, "save_every_steps": 3}
    jobs = [make_job("finetune", tiny_recipe, tiny_world, tmp_path / name, **fields) for name in ("first", "second")]
    log = tmp_path / "log.jsonl"
    monkeypatch.setenv("LLAVA_RUN_LOG", str(log))
    run_together(jobs, 2, tmp_path)
    assert weights_of(jobs[0]) == weights_of(jobs[1])
    assert checkpoints.list_steps(jobs[0].checkpoints_uri) == [3]
    assert sorted(path.name for path in Path(jobs[0].checkpoints_uri).iterdir() if path.name.startswith("step")) == [
        "step-00000003"
    ]
    notes = [json.loads(line).get("text", "") for line in log.read_text().splitlines()]
    assert sum("rehearsed the heaviest micro-batch, a checkpoint of " in note for note in notes) == 2
    # Started again it finds its checkpoint, and writes no other to try.
    run_together(jobs[:1], 2, tmp_path)
    notes = [json.loads(line).get("text", "") for line in log.read_text().splitlines()]
    assert sum("rehearsed the heaviest micro-batch, a snapshot, the final save" in note for note in notes) == 1
    assert result_of(jobs[0]).resumed_from == 3


@pytest.mark.slow
def test_a_quota_is_met_before_the_first_step(tiny_world: TinyWorld, tiny_recipe: Path, tmp_path: Path) -> None:
    """A disk that takes no file over 200 KB (RLIMIT_FSIZE): small files pass, a checkpoint's shard does not."""
    job = make_job("finetune", tiny_recipe, tiny_world, tmp_path, max_steps=3)
    path, log = tmp_path / "job.json", tmp_path / "log.jsonl"
    job.write(str(path))
    done = subprocess.run(
        launch._command(str(path), 1),
        env={**launch._environment(job, 1), "LLAVA_RUN_LOG": str(log)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
        timeout=200,
        check=False,
    )
    assert done.returncode == 2
    failure = storage.read_json(storage.join(job.failure_uri, "rank-00000.json"))
    assert "no checkpoint can be written there" in failure["message"] and "File too large" in failure["message"]
    assert logged_steps(log) == []
    assert checkpoints.list_steps(job.checkpoints_uri) == []
