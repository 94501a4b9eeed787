"""Validation at intervals: the loss over the rows set aside, and a few answers to look at."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
import torch.distributed as dist

from llava.data.records import Record
from llava.telemetry import Telemetry
from llava.training.engine import Engine
from llava.training.job import Job, Sample, Validation
from llava.training.state import RunState
from llava.training.training_rows import TrainingRows

SAMPLE_TOKENS = 48


class Validator:
    """Measures validation loss and answers sample rows; results go into the run's state and telemetry."""

    def __init__(self, job: Job, engine: Engine, processor: Any, data: TrainingRows, telemetry: Telemetry) -> None:
        self.job, self.engine, self.processor, self.data, self.telemetry = job, engine, processor, data, telemetry

    def rehearse(self) -> None:
        """Do once, in small, all that `run` will do; collective."""
        if self.data.validation is not None:
            self.engine.train(False)
            self._loss(limit=1)
            if self.job.train.sample_generations:
                self._answers(2)

    def run(self, step: int, state: RunState) -> None:
        """Validate after `step` optimiser steps; collective."""
        self.engine.train(False)
        loss = self._loss()
        state.validations.append(Validation(step=step, loss=loss))
        self.telemetry.note(f"step {step}: validation loss {loss:.4f}")
        if math.isfinite(loss):
            self.telemetry.gauge("train_validation_loss", loss)
        if self.job.train.sample_generations:
            for record, answer in self._answers(SAMPLE_TOKENS):
                question, expected = record.turns[0].text, record.turns[1].text
                state.samples.append(
                    Sample(
                        step=step,
                        record_id=record.id,
                        images=list(record.images),
                        question=question,
                        expected=expected,
                        answer=answer,
                    )
                )
                self.telemetry.note(f"step {step}: {_line(question)} -> {_line(answer)} (expected {_line(expected)})")

    def _loss(self, limit: int | None = None) -> float:
        total = torch.zeros((), dtype=torch.float64, device=self.engine.device)
        supervised = 0
        for batches in itertools.islice(self.data.validation_batches(), limit):
            supervised += batches.supervised
            for batch in batches.micro_batches:
                total += self.engine.evaluate(self.data.to_device(batch), 1).double()
        if self.engine.world_size > 1:
            dist.all_reduce(total)
        return float(total) / max(1, supervised)

    def _answers(self, tokens: int) -> list[tuple[Record, str]]:
        from llava.model.generation import generate

        chosen = self.data.sample_requests(self.job.train.sample_generations)
        # Every rank answers the same rows: under ZeRO-3 each forward needs all of them.
        requests = [request for _, request in chosen]
        answers = generate(self.engine.model, self.processor, requests, batch_size=len(chosen), max_new_tokens=tokens)
        return [(record, answer) for (record, _), answer in zip(chosen, answers, strict=True)]


def _line(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 70 else f"{flat[:67]}...")
