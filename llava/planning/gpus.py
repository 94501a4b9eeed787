"""GPUs by name: memory, peak and a price to start from.

Peak: dense bf16 FLOP/s by the makers' data sheets. Memory: what the driver reports as usable, in bytes. Price: US
dollars an hour, a round on-demand figure for orientation; pass your own to `llava plan --price`. Link: bytes a second
to the other GPUs of a node, one direction: NVLink where the usual servers have it, else PCIe. What is not in the table
is planned by its memory (`--gpu-memory`) and peak.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from llava.errors import SettingsError

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """One device."""

    name: str
    memory: int
    peak_bf16: float
    price: float
    link: float = 25e9


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("rtx3090", int(23.6 * GIB), 71e12, 0.30, 12e9),
        Gpu("rtx4090", int(23.5 * GIB), 165e12, 0.50, 12e9),
        Gpu("rtx5090", int(31.4 * GIB), 210e12, 0.80),
        Gpu("rtxa6000", int(47.5 * GIB), 155e12, 0.80, 12e9),
        Gpu("rtx6000ada", int(47.5 * GIB), 364e12, 1.00, 12e9),
        Gpu("l4", int(22.0 * GIB), 121e12, 0.80, 12e9),
        Gpu("a10", int(22.0 * GIB), 125e12, 1.00, 12e9),
        Gpu("l40s", int(44.4 * GIB), 362e12, 1.80, 12e9),
        Gpu("a100-40g", int(39.4 * GIB), 312e12, 1.80, 300e9),
        Gpu("a100", int(79.1 * GIB), 312e12, 2.50, 300e9),
        Gpu("h100", int(79.1 * GIB), 989e12, 4.00, 450e9),
        Gpu("h200", int(139.8 * GIB), 989e12, 5.00, 450e9),
        Gpu("b200", int(178.0 * GIB), 2250e12, 7.00, 900e9),
    )
}
UNKNOWN_PEAK = 100e12  # for a GPU that is not in the table and comes without one: hours are then only a comparison


def gpu_named(name: str, *, memory_gib: float = 0.0, peak_tflops: float = 0.0) -> Gpu:
    """The GPU of that name, however it is written (`H100`, `NVIDIA GeForce RTX 4090`), or one given by its memory.

    Args:
        name: a name; one that is not in the table needs `memory_gib`.
        memory_gib: usable GiB; 0: the table's.
        peak_tflops: dense bf16 TFLOP/s; 0: the table's.

    Raises:
        SettingsError: not in the table and without memory; or a number that is not above 0.
    """
    for option, value in (("gpu-memory", memory_gib), ("gpu-tflops", peak_tflops)):
        if value < 0:
            raise SettingsError(f"{option}: found {value}; expected a number above 0")
    found = known_gpu(name)
    if found is None and not memory_gib:
        raise SettingsError(
            f"gpu: found {name!r}; expected one of {', '.join(GPUS)}, or its memory too: --gpu-memory 24 (GiB)"
        )
    if found is None:
        found = Gpu(name, 0, UNKNOWN_PEAK, 0.0)
    changes: dict[str, Any] = {}
    if memory_gib:
        changes["memory"] = int(memory_gib * GIB)
    if peak_tflops:
        changes["peak_bf16"] = peak_tflops * 1e12
    return replace(found, **changes)


def known_gpu(name: str) -> Gpu | None:
    """The GPU of the table that a name, such as its driver's, means; None for any other."""
    plain = re.sub(r"nvidia|geforce|tesla|[^a-z0-9]", "", name.lower())
    exact = {re.sub(r"[^a-z0-9]", "", known): gpu for known, gpu in GPUS.items()}
    if plain in exact:
        return exact[plain]
    if re.match(r"a100.*40gb?", plain):
        return GPUS["a100-40g"]
    # A driver's name goes on: "NVIDIA H100 80GB HBM3".
    starts = [known for known in exact if re.fullmatch(rf"{known}(sxm|pcie|nvl|\d+gb|hbm).*", plain)]
    return exact[max(starts, key=len)] if starts else None
