"""GPUs by name: memory, peak and a price to start from.

Peak: dense bf16 FLOP/s by the makers' data sheets. Memory: what the driver reports as usable, in bytes. Price: US
dollars an hour, a round on-demand figure for orientation; pass your own to `llava plan --price`.
"""

from __future__ import annotations

from dataclasses import dataclass

from llava.errors import SettingsError

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """One device."""

    name: str
    memory: int
    peak_bf16: float
    price: float


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("l4", int(22.0 * GIB), 121e12, 0.80),
        Gpu("a10", int(22.0 * GIB), 125e12, 1.00),
        Gpu("l40s", int(44.4 * GIB), 362e12, 1.80),
        Gpu("a100-40g", int(39.4 * GIB), 312e12, 1.80),
        Gpu("a100", int(79.1 * GIB), 312e12, 2.50),
        Gpu("h100", int(79.1 * GIB), 989e12, 4.00),
        Gpu("h200", int(139.8 * GIB), 989e12, 5.00),
        Gpu("b200", int(178.0 * GIB), 2250e12, 7.00),
    )
}


def gpu_named(name: str) -> Gpu:
    """The GPU of that name, upper or lower case.

    Raises:
        SettingsError: not in the table; the message lists it.
    """
    try:
        return GPUS[name.lower()]
    except KeyError:
        raise SettingsError(f"gpu: found {name!r}; expected one of {', '.join(GPUS)}") from None
