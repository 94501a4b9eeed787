"""One rank of a training run: `python -m llava.training.worker JOB`.

Builds model and data, rehearses everything that could fail late, resumes from the last good checkpoint, trains, saves.
A failure is written down for the stage that started us, so that its user reads one message and not N tracebacks.
"""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
import uuid
import warnings
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from llava import errors, storage
from llava.errors import UserError
from llava.processes import die_with_parent
from llava.telemetry import Telemetry
from llava.tracking.destinations import read_destinations
from llava.tracking.sink import About
from llava.tracking.tracker import Tracker
from llava.training import curves, rehearsal, resume, saving, throughput, validation
from llava.training.checkpoints import CheckpointWriter
from llava.training.engine import Engine, device_of_this_rank
from llava.training.job import Failure, Job, Result
from llava.training.loop import Loop
from llava.training.modelling import build_model_for, build_processor_for
from llava.training.profiling import StepProfiler
from llava.training.snapshots import HostBuffer
from llava.training.state import Identity, RunState, mathematics, weights_fingerprint
from llava.training.training_rows import load_rows

COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # a first step may compile, a checkpoint may come from a slow store
# What gloo, NCCL and the rendezvous store say when the process at the other end has gone; none has a class for it.
LOST_PEER = re.compile(
    r"connection (was )?(closed|reset)|broken pipe|remote process exited|another rank failed|timed out waiting",
    re.IGNORECASE,
)


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit code."""
    die_with_parent()
    job = Job.read(arguments[0])
    rank = int(os.environ["RANK"])
    try:
        run(job)
    except BaseException as error:
        _report(job, rank, error)
        # Threads and process groups of a failed run may never end by themselves.
        sys.stderr.flush()
        os._exit(2 if isinstance(error, UserError) else 1)
    return 0


def run(job: Job) -> None:
    """Do the whole job on this rank; collective.

    Raises:
        UserError: anything the user can put right.
    """
    began = time.monotonic()
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    recipe = job.train
    if job.threads_per_process:
        torch.set_num_threads(job.threads_per_process)
    device = device_of_this_rank()
    with Telemetry(job.stage, job.run, rank=rank) as telemetry:
        telemetry.note(_place(device, world_size))
        _quiet_libraries()
        # A process that runs several jobs one after the other brings its own group.
        own_group = not dist.is_initialized()
        if own_group:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=COLLECTIVE_TIMEOUT)
        processor = build_processor_for(job)
        data = load_rows(job, processor, telemetry, rank, world_size, device)
        telemetry.note(
            f"{len(data.train)} rows, {len(data.problems)} left out; "
            f"{data.total_steps} steps of {recipe.global_batch_size}"
        )
        model = build_model_for(job, processor, device)
        identity = Identity(
            stage=job.stage,
            recipe=mathematics(recipe),
            data=data.fingerprint,
            frozen=weights_fingerprint(model),
            steps=data.total_steps,
        )
        engine = Engine(model, recipe, world_size)
        checks = validation.Validator(job, engine, processor, data, telemetry)
        buffer = HostBuffer()
        writer = CheckpointWriter(
            job.checkpoints_uri,
            rank=rank,
            world_size=world_size,
            zero_stage=engine.zero_stage,
            save_id=_shared(uuid.uuid4().hex),
            keep=recipe.keep_checkpoints,
        )
        rehearsal.rehearse(job, engine, model, processor, data, checks, telemetry, rank, writer, buffer)
        state, first_step, cautions = resume.resume(job, engine, RunState(identity=identity), telemetry, rank)
        meter = throughput.Throughput(model, job.recipe, job.stage, data.plan, device)
        profiler = StepProfiler(job.profile_steps if rank == 0 else 0, storage.join(job.checkpoints_uri, "profile"))
        loop = Loop(
            engine=engine,
            recipe=recipe,
            state=state,
            writer=writer,
            buffer=buffer,
            telemetry=telemetry,
            batches=data.batches(first_step),
            to_device=data.to_device,
            record_ids=data.record_id,
            rank=rank,
            world_size=world_size,
            first_step=first_step,
            total_steps=data.total_steps,
            validate=checks.run if data.validation is not None else None,
            after_log=lambda records: meter.log(records, telemetry),
            profiler=profiler,
        )
        with _tracker(job, state, first_step, data.sha256, world_size, rank, telemetry) as loop.tracker:
            loop.run()
            telemetry.note("saving")
            saving.save(job, engine, model, processor, rank)
            loop.tracker.summary(meter.summary(state.history) | {"train_seconds": state.seconds})
        if rank == 0:
            result = Result(
                steps=data.total_steps,
                resumed_from=first_step or None,
                world_size=world_size,
                device=torch.cuda.get_device_name(device)
                if device.type == "cuda"
                else f"{torch.get_num_threads()} CPU threads",
                history=state.history,
                validations=state.validations,
                samples=state.samples,
                numbers={
                    **meter.summary(state.history),
                    "train_seconds": state.seconds,
                    "worker_seconds": time.monotonic() - began,
                    "rows": float(len(data.train)),
                    "rows_left_out": float(len(data.problems)),
                },
                deepspeed_config=engine.config,
                warnings=cautions,
                data_sha256=data.sha256,
                problems=data.problems,
                profile=profiler.result,
            )
            storage.write_json(job.result_uri, result.model_dump(mode="json"), indent=None)
        if world_size > 1:
            dist.barrier()
        engine.close()
        if own_group:
            dist.destroy_process_group()


def _tracker(
    job: Job, state: RunState, first_step: int, data: str, world_size: int, rank: int, telemetry: Telemetry
) -> Tracker:
    """Rank 0's trackers; none on the others."""
    name = f"{job.run}-{job.stage}" if job.run else f"{job.stage}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    about = About(
        name=name,
        parameters=curves.parameters(job.recipe, job.stage, data_sha256=data, world_size=world_size),
        first_step=first_step,
        folder=job.checkpoints_uri,
    )
    history = [*curves.step_points(state.history), *curves.validation_points(state.validations)]
    return Tracker(
        read_destinations(job.tracking) if rank == 0 else (),
        about,
        sorted(history, key=lambda point: point.step),
        telemetry,
        earlier=job.resume_uri,
    )


def _place(device: torch.device, world_size: int) -> str:
    """Where this run computes: the first thing to look at when it is slow."""
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        return f"{torch.cuda.get_device_name(device)} with {memory / 2**30:.1f} GiB, {world_size} ranks, bf16"
    return f"CPU with {torch.get_num_threads()} threads a rank, {world_size} ranks, fp32"


def _quiet_libraries() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # DeepSpeed calls collectives by their old names; nothing a user could do about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")


def _shared(value: Any) -> Any:
    """Rank 0's value on every rank."""
    box = [value]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(box)
    return box[0]


def _report(job: Job, rank: int, error: BaseException) -> None:
    # The nearest class that can be raised again from its message alone.
    named = [k.__name__ for k in type(error).__mro__ if k.__module__ == errors.__name__ and k is not errors.RowError]
    failure = Failure(
        rank=rank,
        unix_time=time.time(),
        user=isinstance(error, UserError),
        lost_peer=isinstance(error, RuntimeError) and LOST_PEER.search(str(error)) is not None,
        error_class=named[0] if named else type(error).__name__,
        message=str(error),
        traceback="".join(traceback.format_exception(error)),
    )
    try:
        storage.write_json(storage.join(job.failure_uri, f"rank-{rank:05d}.json"), failure.model_dump(mode="json"))
    except Exception as second:  # the first error is what matters; without a place to write it, say it here
        print(f"{failure.traceback}\n(and it could not be written down: {second})", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
