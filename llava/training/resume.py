"""Go on from the last good checkpoint.

A damaged checkpoint is passed over with a warning and the one before it is used; a checkpoint of another run is an
error. Ranks agree on the step: rank 0 looks for it, all of them read it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch.distributed as dist

from llava.errors import StorageError
from llava.telemetry import Telemetry
from llava.training import checkpoints
from llava.training.engine import Engine
from llava.training.job import Job
from llava.training.state import RunState, check_same


def resume(
    job: Job, engine: Engine, fresh: RunState, telemetry: Telemetry, rank: int
) -> tuple[RunState, int, list[str]]:
    """Restore engine and state where there is a checkpoint; collective.

    Returns:
        The state to go on with, the number of steps already done, and warnings for the report.

    Raises:
        SettingsError: the checkpoints belong to another run.
    """
    warnings: list[str] = []
    with tempfile.TemporaryDirectory(prefix="llava-resume-") as scratch:
        step = _newest_good(job.checkpoints_uri, Path(scratch), fresh, warnings) if rank == 0 else None
        if dist.get_world_size() > 1:
            box = [step]
            dist.broadcast_object_list(box)
            step = box[0]
        for warning in warnings:
            telemetry.note(f"warning: {warning}")
        if step is None:
            return fresh, 0, warnings
        manifest, paths = checkpoints.read_checkpoint(job.checkpoints_uri, step, Path(scratch))
        checkpoints.restore(engine.fragments(), manifest, paths)
        engine.restored(step)
    state = RunState.model_validate(manifest.state)
    state.cut_to(step)
    other = f", written by {manifest.world_size} ranks" if manifest.world_size != dist.get_world_size() else ""
    telemetry.note(f"going on from the checkpoint of step {step}{other}")
    return state, step, warnings


def _newest_good(uri: str, scratch: Path, fresh: RunState, warnings: list[str]) -> int | None:
    for step in reversed(checkpoints.list_steps(uri)):
        try:
            manifest, _ = checkpoints.read_checkpoint(uri, step, scratch)
        except StorageError as error:
            warnings.append(f"the checkpoint of step {step} cannot be used and the one before it is taken: {error}")
            continue
        check_same(
            RunState.model_validate(manifest.state).identity, fresh.identity, f"{uri}: checkpoint of step {step}"
        )
        return step
    return None
