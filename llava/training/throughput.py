"""Tokens and FLOPs a second, and the share of the devices' peak that is (MFU, Chowdhery et al. 2022).

FLOPs are the model's own, by `llava.planning.flops`: nothing that is computed twice counts, nor padding.
"""

from __future__ import annotations

from typing import Any

import torch

from llava.config import Recipe
from llava.data.batch_plan import BatchPlan
from llava.planning import flops
from llava.planning.gpus import known_gpu
from llava.planning.shape import Shape
from llava.telemetry import Telemetry
from llava.training.job import StageName, StepRecord


def peak_flops(device_name: str) -> float | None:
    """Peak dense bf16 FLOP/s of a device by the name its driver gives; None if `llava.planning.gpus` lacks it."""
    known = known_gpu(device_name)
    return known.peak_bf16 if known else None


class Throughput:
    """Turns step records into speeds.

    Args:
        model: decides the FLOPs of a step, with `plan`, which knows each step's rows.
        device: of this rank; the others have the same.
    """

    def __init__(self, model: Any, recipe: Recipe, stage: StageName, plan: BatchPlan, device: torch.device) -> None:
        self.stage, self.plan, self.device = stage, plan, device
        self.train = recipe.pretrain if stage == "pretrain" else recipe.finetune
        self.shape = Shape.of(model.config, recipe.model.projector)
        peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        self.peak = peak * plan.world_size if peak else None

    def step_flops(self, step: int) -> float:
        """Model FLOPs of 1-based `step`, all ranks together."""
        rows = self.plan.rows(step - 1)
        counted = flops.step_flops(
            self.shape,
            self.stage,
            documents=self.plan.lengths[rows].tolist(),
            positions=float(self.plan.supervised_tokens[rows].sum()),
            images=float(self.plan.image_counts[rows].sum()),
            lora=self.train.lora,
            train_tower=self.train.vision_tower_learning_rate is not None,
        )
        return counted.total

    def log(self, records: list[StepRecord], telemetry: Telemetry) -> None:
        """Publish the speed of a stretch of steps."""
        seconds = sum(record.seconds or 0.0 for record in records)
        if not seconds:
            return
        tokens = sum(record.tokens for record in records)
        telemetry.gauge("train_tokens_per_second_per_device", tokens / seconds / self.plan.world_size)
        speed = sum(self.step_flops(record.step) for record in records) / seconds
        telemetry.gauge("train_model_flops_per_second", speed)
        if self.peak:
            telemetry.gauge("train_mfu", speed / self.peak)

    def summary(self, history: list[StepRecord]) -> dict[str, float]:
        """Figures of the whole run, for metrics and manifest. The first tenth of the steps is warm-up and left out."""
        warm = history[-1].step // 10 if history else 0
        timed = [record for record in history if record.seconds and record.step > warm]
        steps = sum(record.steps for record in timed)
        seconds = sum(record.seconds or 0.0 for record in timed)
        numbers = {
            "final_loss": _mean([record.loss for record in history[-max(1, min(10, len(history) // 10)) :]]),
            "tokens": float(sum(record.tokens for record in history)),
            "padding_share": _mean([record.padding for record in history for _ in range(record.steps)]),
            "loss_spikes": float(sum(record.spike for record in history)),
        }
        if seconds:
            speed = sum(record.steps * self.step_flops(record.step) for record in timed) / seconds
            numbers["tokens_per_second"] = sum(record.tokens for record in timed) / seconds
            numbers["step_seconds"] = seconds / steps
            numbers["data_wait_share"] = sum(record.data_wait_seconds or 0.0 for record in timed) / seconds
            numbers["model_tflops_per_second"] = speed / 1e12
            if self.peak:
                numbers["mfu"] = speed / self.peak
        if self.device.type == "cuda":
            numbers["peak_memory_bytes"] = float(torch.cuda.max_memory_allocated())
        return numbers


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
