"""One file a benchmark. A new one is a subclass of `Benchmark` and a line here."""

from __future__ import annotations

from llava.errors import SettingsError
from llava.evaluation.benchmark import Benchmark
from llava.evaluation.benchmarks.world import World

BENCHMARKS: tuple[type[Benchmark], ...] = (World,)


def get_benchmark(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
        SettingsError: there is none of that name.
    """
    known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    if name not in known:
        raise SettingsError(f"benchmark: found {name!r}; expected one of {', '.join(sorted(known))}")
    return known[name]()
