"""Tokens and FLOPs a second, and the share of the device's peak that is (MFU, Chowdhery et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch

from llava.config import TrainRecipe
from llava.telemetry import Telemetry
from llava.training.job import StepRecord

# Dense bf16 FLOP/s by the makers' data sheets; the longest name found in the device's name counts.
PEAK_BF16 = {
    "A10": 125e12,
    "A30": 165e12,
    "A40": 149.7e12,
    "A100": 312e12,
    "L4": 121e12,
    "L40S": 362e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "V100": 125e12,
    "RTX 4090": 165.2e12,
}


def peak_flops(device: torch.device) -> float | None:
    """Peak FLOP/s of one device in bf16; None on CPU and for devices not in the table."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    known = [key for key in PEAK_BF16 if key in name]
    return PEAK_BF16[max(known, key=len)] if known else None


class Throughput:
    """Turns step records into speeds.

    Args:
        model: decides the FLOPs of a token; see `llava.model.flops` for what is counted.
    """

    def __init__(self, model: Any, recipe: TrainRecipe, stage: str, device: torch.device, world_size: int) -> None:
        self.device, self.world_size = device, world_size
        self.peak = peak_flops(device)

    def log(self, records: list[StepRecord], telemetry: Telemetry) -> None:
        """Publish what needs the model's size to be known."""
        seconds = sum(record.seconds or 0.0 for record in records)
        if seconds:
            telemetry.gauge(
                "train_tokens_per_second_per_device", sum(r.tokens for r in records) / seconds / self.world_size
            )

    def summary(self, history: list[StepRecord]) -> dict[str, float]:
        """Figures of the whole run, for metrics and manifest. The first tenth of the steps is warm-up and left out."""
        timed = [record for record in history[len(history) // 10 :] if record.seconds]
        seconds = sum(record.seconds or 0.0 for record in timed)
        tokens = sum(record.tokens for record in timed)
        numbers = {
            "final_loss": _mean([record.loss for record in history[-max(1, min(10, len(history) // 10)) :]]),
            "tokens": float(sum(record.tokens for record in history)),
            "tokens_per_second": tokens / seconds if seconds else 0.0,
            "step_seconds": seconds / len(timed) if timed else 0.0,
            "data_wait_share": sum(r.data_wait_seconds or 0.0 for r in timed) / seconds if seconds else 0.0,
            "padding_share": _mean([record.padding for record in history]),
            "loss_spikes": float(sum(record.spike for record in history)),
        }
        if self.device.type == "cuda":
            numbers["peak_memory_bytes"] = float(torch.cuda.max_memory_allocated())
        return numbers


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
