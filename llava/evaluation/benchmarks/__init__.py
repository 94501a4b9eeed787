"""One file a benchmark. A new one is a subclass of `Benchmark` and a line here."""

from __future__ import annotations

from llava.errors import SettingsError
from llava.evaluation.benchmark import Benchmark
from llava.evaluation.benchmarks.captions import Captions
from llava.evaluation.benchmarks.gqa import GQA
from llava.evaluation.benchmarks.mmbench import MMBench, MMBenchCN
from llava.evaluation.benchmarks.mme import MME
from llava.evaluation.benchmarks.pope import Pope
from llava.evaluation.benchmarks.refcoco import RefCOCO
from llava.evaluation.benchmarks.scienceqa import ScienceQA
from llava.evaluation.benchmarks.seed import Seed
from llava.evaluation.benchmarks.textvqa import TextVQA
from llava.evaluation.benchmarks.vizwiz import VizWiz
from llava.evaluation.benchmarks.vqav2 import VQAv2
from llava.evaluation.benchmarks.world import World

BENCHMARKS: tuple[type[Benchmark], ...] = (
    World,
    VQAv2,
    GQA,
    TextVQA,
    VizWiz,
    ScienceQA,
    Pope,
    MME,
    MMBench,
    MMBenchCN,
    Seed,
    RefCOCO,
    Captions,
)


def get_benchmark(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
        SettingsError: there is none of that name.
    """
    known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    if name not in known:
        raise SettingsError(f"benchmark: found {name!r}; expected one of {', '.join(sorted(known))}")
    return known[name]()
