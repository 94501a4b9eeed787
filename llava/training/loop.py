"""The training loop, the same for both stages.

A step is `global_batch_size` rows however they are laid out: micro-batches forward and backward, then one update.
Within a step nothing waits for the device; losses are fetched at log steps, and before anything is saved or reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from llava.config import TrainRecipe
from llava.data.batches import Batch, StepBatches
from llava.telemetry import Telemetry
from llava.tracking.tracker import Tracker
from llava.training import schedule
from llava.training.checkpoints import CheckpointWriter
from llava.training.curves import step_points, validation_points
from llava.training.engine import Engine
from llava.training.job import StepRecord
from llava.training.meters import Meter
from llava.training.profiling import StepProfiler
from llava.training.snapshots import HostBuffer, take_snapshot
from llava.training.state import RunState


@dataclass
class Loop:
    """Everything the loop needs, made by the worker.

    Attributes:
        batches: this rank's part of every step from the first that is left to the last.
        to_device: brings a batch to the engine's device without waiting.
        record_ids: dataset index -> record id, for messages.
        validate: run after a step whose number is a multiple of `validate_every_steps`, and after the last.
        after_log: given the records of a stretch of steps once they are fetched.
        profiler: told where each step begins and ends.
        tracker: given every step and validation, and flushed before a checkpoint.
    """

    engine: Engine
    recipe: TrainRecipe
    state: RunState
    writer: CheckpointWriter
    telemetry: Telemetry
    batches: Iterable[StepBatches]
    to_device: Callable[[Batch], Batch]
    record_ids: Callable[[int], str]
    rank: int
    world_size: int
    first_step: int
    total_steps: int
    validate: Callable[[int, RunState], None] | None = None
    after_log: Callable[[list[StepRecord]], None] | None = None
    buffer: HostBuffer = field(default_factory=HostBuffer)
    profiler: StepProfiler | None = None
    tracker: Tracker | None = None
    _shown: dict[str, float | str | None] = field(default_factory=dict, init=False)

    def run(self) -> None:
        """Train from `first_step` to `total_steps`.

        Raises:
            NotFinite: the loss or the gradient is not a number.
            RowError: a row broke between the check and its use.
            StorageError: a checkpoint could not be written.
        """
        meter = Meter(self.engine.device, self.rank, self.world_size, self.state.history)
        started, before = time.monotonic(), self.state.seconds
        self.engine.train()
        source = iter(self.batches)
        for step in range(self.first_step, self.total_steps):
            work = next(source)
            assert work.step == step, f"the loader gave step {work.step} where {step} was due"
            if self.profiler is not None:
                self.profiler.before_step()
            self._step(step, work, meter)
            if self.profiler is not None:
                self.profiler.after_step()
            done = step + 1
            last = done == self.total_steps
            save = last or done % self.recipe.save_every_steps == 0
            check = self.validate is not None and (last or done % self.recipe.validate_every_steps == 0)
            if last or save or check or done % self.recipe.log_every_steps == 0:
                self._log(meter.flush())
            else:  # slow steps are seen to progress, with the values of the last log
                self.telemetry.progress("step", done, self.total_steps, **self._shown)
            self.state.seconds = before + time.monotonic() - started
            if check and self.validate is not None:
                self.validate(done, self.state)
                self.engine.train()
                if self.tracker is not None:
                    self.tracker.log(validation_points(self.state.validations[-1:]))
            if save:
                self._save(done)
            if save or check:
                meter.start_clock()
        if self.profiler is not None:
            self.profiler.finish()
        self.writer.wait()

    def _step(self, step: int, work: StepBatches, meter: Meter) -> None:
        # The same random numbers whether or not the run was interrupted before this step.
        torch.manual_seed((self.recipe.seed * 1_000_003 + step) * 4099 + self.rank)
        losses, rows, tokens, places = [], [], 0, 0
        for index, cpu_batch in enumerate(work.micro_batches):
            batch = self.to_device(cpu_batch)
            losses.append(self.engine.micro(batch, work.supervised, last=index == len(work.micro_batches) - 1))
            rows.append([self.record_ids(row) for row in cpu_batch.rows])
            tokens += cpu_batch.tokens
            places += cpu_batch.input_ids_BT.numel()
        factor = schedule.factor(step, self.total_steps, self.recipe)
        self.engine.update(factor)
        meter.add(
            step + 1,
            losses,
            rows,
            self.engine.gradient_norm(),
            learning_rate=factor * self.recipe.learning_rate,
            tokens=tokens,
            places=places,
            data_wait=work.wait_seconds,
        )

    def _save(self, done: int) -> None:
        if self.tracker is not None:
            self.tracker.flush()
        started = time.perf_counter()
        self.writer.wait()  # the buffer holds the last snapshot until it has been written
        snapshot = take_snapshot(self.engine.fragments(), self.rank, self.world_size, self.buffer)
        self.writer.save(done, snapshot, self.state.model_dump(mode="json"))
        # How long training stood still; the writing itself runs beside it.
        self.telemetry.observe("train_checkpoint_pause_seconds", time.perf_counter() - started)
        if self.writer.last_seconds:
            self.telemetry.observe("train_checkpoint_seconds", self.writer.last_seconds)

    def _log(self, records: list[StepRecord]) -> None:
        if not records:
            return
        latest = records[-1]
        seconds = sum(record.seconds or 0.0 for record in records)
        tokens = sum(record.tokens for record in records)
        wait = sum(record.data_wait_seconds or 0.0 for record in records)
        speed = tokens / seconds if seconds else 0.0
        t = self.telemetry
        self._shown = {
            "loss": latest.loss,
            "lr": latest.learning_rate,
            "tokens_s": round(speed),
            "wait": f"{100 * wait / seconds:.0f}%" if seconds else None,
            "padding": f"{100 * latest.padding:.0f}%",
        }
        t.progress("step", latest.step, self.total_steps, **self._shown)
        t.gauge("train_loss", latest.loss)
        t.gauge("train_learning_rate", latest.learning_rate)
        t.gauge("train_tokens_per_second", speed)
        t.gauge("train_data_wait_share", wait / seconds if seconds else 0.0)
        t.gauge("train_padding_share", latest.padding)
        t.gauge("train_last_step_timestamp_seconds", time.time())
        t.gauge("train_step", latest.step)
        if latest.grad_norm is not None:
            t.gauge("train_grad_norm", latest.grad_norm)
        if self.engine.device.type == "cuda":
            t.gauge("train_peak_memory_bytes", torch.cuda.max_memory_allocated())
        t.count("train_tokens", tokens)
        t.count("train_steps", len(records))
        for record in records:
            t.observe("train_step_seconds", record.seconds or 0.0)
            t.record("step", **record.model_dump())
            if record.spike:
                t.count("train_loss_spikes")
                t.note(f"step {record.step}: the loss jumped to {record.loss:.4f}")
        if self.tracker is not None:
            self.tracker.log(step_points(records))
        if self.after_log is not None:
            self.after_log(records)
