"""Everything that could fail late is tried before step 1: the heaviest micro-batches, both saves, the evaluation."""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from llava import storage
from llava.errors import SettingsError, StorageError
from llava.model.processor_saving import save_processor
from llava.telemetry import Telemetry
from llava.training import saving
from llava.training.checkpoints import CheckpointWriter, list_steps
from llava.training.engine import Engine
from llava.training.job import Job
from llava.training.snapshots import HostBuffer, take_snapshot
from llava.training.together import gathered, in_touch
from llava.training.training_rows import TrainingRows
from llava.training.validation import Validator


def rehearse(
    job: Job,
    engine: Engine,
    model: Any,
    processor: Any,
    data: TrainingRows,
    checks: Validator,
    telemetry: Telemetry,
    rank: int,
    writer: CheckpointWriter,
    buffer: HostBuffer,
) -> None:
    """Try the whole run in small; collective. The model and the optimiser are afterwards as they were.

    Args:
        writer: of this run's checkpoints.
        buffer: for this run's snapshots: afterwards it holds all the host memory that they will need.

    Raises:
        StorageError: an output place cannot be written, or its disk is too small for what will be written.
        SettingsError: a heaviest micro-batch, a snapshot or the final save does not fit into memory, or no model can be
            saved.
    """
    started = time.monotonic()
    if rank == 0:
        for uri in (job.output_uri, job.checkpoints_uri):
            _probe(uri)
        _check_space(job, model)
        with tempfile.TemporaryDirectory(prefix="llava-rehearsal-") as folder:
            save_processor(processor, Path(folder))
    _check_keys(model)
    heaviest_step(engine, data)
    written = _checkpoint(job, engine, writer, buffer, rank)
    with _enough_memory("gathering the model for the final save"):
        saving.rehearse(job, engine, model, rank)
    checks.rehearse()
    saved = f"a checkpoint of {written / 1e6:,.1f} MB" if written else "a snapshot"
    telemetry.note(
        f"rehearsed the heaviest micro-batch, {saved}, the final save and the evaluation in "
        f"{time.monotonic() - started:.1f} s"
    )


def _checkpoint(job: Job, engine: Engine, writer: CheckpointWriter, buffer: HostBuffer, rank: int) -> int:
    """Take a real snapshot; write and delete it, unless a checkpoint of the run is there and shows that this works.

    Returns:
        Bytes written, over all ranks.
    """
    with _enough_memory("a checkpoint's snapshot in host memory"):
        snapshot = take_snapshot(engine.fragments(), rank, engine.world_size, buffer)
    if gathered(bool(list_steps(job.checkpoints_uri)) if rank == 0 else False)[0]:
        return 0
    in_touch("rehearsing a checkpoint", lambda _: writer.rehearse(snapshot))
    if rank == 0:
        writer.forget_rehearsal()
    return sum(gathered(sum(tensor.nbytes for tensor in snapshot.tensors.values())))


@contextmanager
def _enough_memory(what: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # A GPU's shortage has a class; a host's, in pages or page-locked ones, has words.
        short = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not short and not any(sign in str(error).lower() for sign in ("allocate memory", "out of memory")):
            raise
        raise SettingsError(
            f"{what} does not fit into memory: `llava plan` prints what a node needs, and what would fit ({error})"
        ) from error


def heaviest_step(engine: Engine, data: TrainingRows) -> None:
    """One real step at learning rate zero: memory of forward, backward, gradients and optimiser all at their height."""
    before = [
        (fragment, fragment.master.clone()) for fragment in engine.fragments() if fragment.master.device.type == "cpu"
    ]
    heaviest = data.heaviest_micro_batches()
    engine.train()
    try:
        for index, host_batch in enumerate(heaviest):
            batch = data.to_device(host_batch)
            engine.micro(batch, max(1, len(batch.target_ids_K)), last=index == len(heaviest) - 1)
        engine.update(0.0)
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
    except torch.OutOfMemoryError as error:
        raise SettingsError(
            f"the heaviest micro-batch ({batch.tokens} tokens, {len(batch.pixel_values_ICHW)} images or tiles) does "
            f"not fit into the GPU's memory: `llava plan` prints what would ({error})"
        ) from error
    for fragment in engine.fragments():
        for moment in fragment.moments.values():
            moment.zero_()
    for fragment, master in before:  # x + 0 * update is x but for the sign of zero; on CPU we keep even that
        fragment.master.copy_(master)
    engine.restored(0)


def _check_keys(model: Any) -> None:
    from llava.model.saving import hub_key

    for name in model.state_dict():
        hub_key(name)  # raises for a parameter that has no place in the hub layout


def _probe(uri: str) -> None:
    place = storage.join(uri, f".probe-{uuid.uuid4().hex}")
    storage.write_bytes(place, b"")
    storage.delete(place)


def _check_space(job: Job, model: Any) -> None:
    """Local disks only: checkpoints are 12 bytes a trained parameter, one more of them than is kept, and the result."""
    parameters = list(model.parameters())
    trained = [_numel(parameter) for parameter in parameters if parameter.requires_grad]
    saved = sum(_numel(p) * p.element_size() for p in parameters if p.requires_grad or job.stage == "finetune")
    need = {job.checkpoints_uri: 12 * sum(trained) * (job.train.keep_checkpoints + 1), job.output_uri: saved}
    disks: dict[int, tuple[str, int]] = {}
    for uri, size in need.items():
        if storage.is_remote(uri):
            continue
        path = storage.local_path(uri)
        path.mkdir(parents=True, exist_ok=True)
        disk = path.stat().st_dev
        disks[disk] = (uri, disks.get(disk, ("", 0))[1] + size)
    for uri, size in disks.values():
        free = shutil.disk_usage(storage.local_path(uri)).free
        if free < size:
            raise StorageError(
                f"{uri}: {free / 2**30:.1f} GiB are free, and checkpoints and result will need {size / 2**30:.1f} GiB; "
                "choose another place or lower keep_checkpoints"
            )


def _numel(parameter: Any) -> int:
    return int(getattr(parameter, "ds_numel", parameter.numel()))  # under ZeRO-3 a rank holds only its part
