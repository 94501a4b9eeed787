"""Devices by the name their driver gives."""

from __future__ import annotations

import pytest

from llava.training.throughput import peak_flops


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce GT 1030", None),
    ],
)
def test_peak_by_the_driver_s_name(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak
