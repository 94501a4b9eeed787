"""Validation at intervals: the loss over the rows set aside, and a few answers to look at."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist

from llava.telemetry import Telemetry
from llava.training.engine import Engine
from llava.training.job import Job, Sample, Validation
from llava.training.state import RunState

SAMPLE_TOKENS = 48


class Validator:
    """Measures validation loss and answers sample rows; results go into the run's state and telemetry."""

    def __init__(
        self,
        job: Job,
        engine: Engine,
        processor: Any,
        data: Any,
        state: RunState,
        telemetry: Telemetry,
        rank: int,
        world_size: int,
    ) -> None:
        self.job, self.engine, self.processor, self.data = job, engine, processor, data
        self.state, self.telemetry, self.rank, self.world_size = state, telemetry, rank, world_size

    def run(self, step: int) -> None:
        """Validate after `step` optimiser steps; collective."""
        self.engine.train(False)
        loss = self._loss()
        self.state.validations.append(Validation(step=step, loss=loss))
        self.telemetry.note(f"step {step}: validation loss {loss:.4f}")
        self.telemetry.gauge("train_validation_loss", loss if math.isfinite(loss) else -1.0)
        if self.job.train.sample_generations:
            self._samples(step)

    def _loss(self) -> float:
        total = torch.zeros((), dtype=torch.float64, device=self.engine.device)
        supervised = 0
        for batches in self.data.validation_batches():
            supervised += batches.supervised
            for batch in batches.micro_batches:
                total += self.engine.evaluate(batch.to(self.engine.device), 1).double()
        if self.world_size > 1:
            dist.all_reduce(total)
        return float(total) / max(1, supervised)

    def _samples(self, step: int) -> None:
        from llava.model.generation import generate

        chosen = self.data.sample_requests(self.job.train.sample_generations)
        # Every rank answers the same rows: under ZeRO-3 each forward needs all of them.
        answers = generate(
            self.engine.model,
            self.processor,
            [request for _, request in chosen],
            batch_size=len(chosen),
            max_new_tokens=SAMPLE_TOKENS,
        )
        for (record, _), answer in zip(chosen, answers, strict=True):
            sample = Sample(
                step=step,
                record_id=record.id,
                images=list(record.images),
                question=record.turns[0].text,
                expected=record.turns[1].text,
                answer=answer,
            )
            self.state.samples.append(sample)
            self.telemetry.note(
                f"step {step}: {_line(sample.question)} -> {_line(answer)} (expected {_line(sample.expected)})"
            )


def _line(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 70 else f"{flat[:67]}...")
