"""Resume from the last good checkpoint.

A damaged checkpoint is passed over with a warning and the one before it is used; a checkpoint of another run is an
error. Ranks agree on the step: rank 0 looks for it, all of them read it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch.distributed as dist

from llava.errors import SettingsError, StorageError
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
        The state to resume with, the number of steps already done, and warnings for the report.

    Raises:
        SettingsError: the checkpoints belong to another run, or there are none where `resume_uri` says.
    """
    warnings: list[str] = []
    with tempfile.TemporaryDirectory(prefix="llava-resume-") as scratch:
        box = [_newest_good(job, Path(scratch), fresh, warnings) if rank == 0 else None]
        if dist.get_world_size() > 1:
            dist.broadcast_object_list(box)
        for warning in warnings:
            telemetry.note(f"warning: {warning}")
        if box[0] is None:
            return fresh, 0, warnings
        uri, step = box[0]
        manifest, paths = checkpoints.read_checkpoint(uri, step, Path(scratch))
        checkpoints.restore(engine.fragments(), manifest, paths)
        engine.restored(step)
    state = RunState.model_validate(manifest.state)
    state.cut_to(step)
    other = f", written by {manifest.world_size} ranks" if manifest.world_size != dist.get_world_size() else ""
    other += "" if uri == job.checkpoints_uri else f", of an earlier run: {uri}"
    telemetry.note(f"resuming from the checkpoint of step {step}{other}")
    return state, step, warnings


def _newest_good(job: Job, scratch: Path, fresh: RunState, warnings: list[str]) -> tuple[str, int] | None:
    """Where, and of which step; this run's own go before those of the run it continues."""
    for uri in filter(None, (job.checkpoints_uri, job.resume_uri)):
        for step in reversed(checkpoints.list_steps(uri)):
            try:
                manifest, _ = checkpoints.read_checkpoint(uri, step, scratch)
            except StorageError as error:
                warnings.append(f"the checkpoint of step {step} cannot be used and the one before it is taken: {error}")
                continue
            check_same(
                RunState.model_validate(manifest.state).identity, fresh.identity, f"{uri}: checkpoint of step {step}"
            )
            return uri, step
    if job.resume_uri:
        raise SettingsError(
            f"resume_uri: no checkpoint that can be used in {job.resume_uri}; leave it empty to begin anew"
        )
    return None
