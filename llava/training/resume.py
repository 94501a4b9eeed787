"""Resume from the last good checkpoint, each rank reading its own part of it.

A damaged checkpoint is passed over with a warning and the one before it is used; when none is left, that is an error:
a run that silently began anew would cost what the last one cost. A checkpoint of another run is an error too.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import torch.distributed as dist

from llava.errors import SettingsError, StorageError, StoreAwayError
from llava.telemetry import Telemetry
from llava.training import checkpoints
from llava.training.checkpoints import CheckpointManifest
from llava.training.engine import Engine
from llava.training.fragments import Fragment
from llava.training.job import Job
from llava.training.snapshots import owners_of, tensors_of
from llava.training.state import RunState, check_same
from llava.training.together import gathered, in_touch


def resume(
    job: Job, engine: Engine, fresh: RunState, telemetry: Telemetry, rank: int
) -> tuple[RunState, int, list[str]]:
    """Restore engine and state where there is a checkpoint, and collect what interrupted saves left; collective.

    Returns:
        The state to resume with, the number of steps already done, and warnings for the report.

    Raises:
        SettingsError: the checkpoints belong to another run, or there are none where `resume_uri` says.
        StorageError: there are checkpoints, and every one of them is damaged.
    """
    warnings: list[str] = []
    found = gathered(_candidates(job, fresh, warnings) if rank == 0 else [])[0]
    fragments = engine.fragments() if found else []
    for uri, step, text in found:
        manifest = CheckpointManifest.model_validate_json(text)
        problem = _restore(fragments, uri, manifest, telemetry, rank)
        if problem:
            warnings.append(f"the checkpoint of step {step} cannot be used and the one before it is taken: {problem}")
            continue
        engine.restored(step)
        state = RunState.model_validate(manifest.state)
        state.cut_to(step)
        _tidy(job, telemetry, rank, warnings)
        other = f", written by {manifest.world_size} ranks" if manifest.world_size != dist.get_world_size() else ""
        other += "" if uri == job.checkpoints_uri else f", of an earlier run: {uri}"
        telemetry.note(f"resuming from the checkpoint of step {step}{other}")
        return state, step, gathered(warnings)[0]
    warnings = gathered(warnings)[0]
    if warnings:
        raise StorageError(
            f"{job.checkpoints_uri}: every checkpoint is damaged, so there is nothing to resume from:\n  "
            + "\n  ".join(warnings)
            + "\nRestore one, or delete them (or choose another outputs folder) to begin at step 0"
        )
    if job.resume_uri:
        raise SettingsError(
            f"resume_uri: no checkpoint that can be used in {job.resume_uri}; leave it empty to begin anew"
        )
    _tidy(job, telemetry, rank, warnings)
    return fresh, 0, warnings


def _candidates(job: Job, fresh: RunState, warnings: list[str]) -> list[tuple[str, int, str]]:
    """(place, step, manifest), newest first; this run's own go before those of the run it continues."""
    found = []
    for uri in filter(None, (job.checkpoints_uri, job.resume_uri)):
        for step in reversed(checkpoints.list_steps(uri)):
            try:
                manifest = checkpoints.read_manifest(uri, step)
            except StoreAwayError:
                raise
            except StorageError as error:
                warnings.append(f"the checkpoint of step {step} cannot be used and the one before it is taken: {error}")
                continue
            check_same(
                RunState.model_validate(manifest.state).identity, fresh.identity, f"{uri}: checkpoint of step {step}"
            )
            found.append((uri, step, manifest.model_dump_json()))
    return found


def _restore(fragments: list[Fragment], uri: str, manifest: CheckpointManifest, telemetry: Telemetry, rank: int) -> str:
    """Read this rank's part into its fragments; the first rank's problem that had one, the same on every rank."""
    owners = owners_of(fragments, dist.get_world_size())
    mine = [f for f, owner in zip(fragments, owners, strict=True) if owner in (None, rank)]

    def read(_: object) -> str:
        try:
            checkpoints.restore(mine, uri, manifest)
        except StoreAwayError:
            raise  # that is not damage
        except StorageError as error:
            return str(error)
        return ""

    name = PurePosixPath(uri).name
    telemetry.note(f"reading the checkpoint of step {manifest.step} from {name}")
    problems = gathered(in_touch("reading the checkpoint", read))
    problem = next(filter(None, problems), "")
    if not problem:
        for fragment, owner in zip(fragments, owners, strict=True):
            if owner is not None and dist.get_world_size() > 1:
                for tensor in tensors_of(fragment).values():  # whole on every rank: read once, then handed round
                    dist.broadcast(tensor, src=owner)
    return problem


def _tidy(job: Job, telemetry: Telemetry, rank: int, warnings: list[str]) -> None:
    """Delete what an interrupted save or delete left; nobody saves before all ranks have come past here."""
    if rank == 0 and not warnings:  # a checkpoint that is only damaged is for its owner to look at
        left = checkpoints.collect_leftovers(job.checkpoints_uri)
        if left:
            telemetry.note(f"deleted what interrupted saves left: {', '.join(left)}")
    if dist.get_world_size() > 1:
        dist.barrier()
