"""One file a benchmark. A new one is a subclass of `Benchmark` and a line here.

A benchmark of one's own needs no change to this package: `--benchmark my_benchmark.py` (or `my_benchmark.py:MyClass`)
names a Python file with such a subclass, and an installed package may offer one under the entry point group
`llava.benchmarks`. Either is code that runs here, so it runs only when its name is given.
"""

from __future__ import annotations

import importlib.util
import inspect
from importlib.metadata import entry_points

from llava import storage
from llava.errors import SettingsError
from llava.evaluation.benchmark import Benchmark
from llava.evaluation.benchmarks.ai2d import AI2D
from llava.evaluation.benchmarks.captions import Captions, Flickr30k, NoCaps
from llava.evaluation.benchmarks.chartqa import ChartQA
from llava.evaluation.benchmarks.custom import Custom
from llava.evaluation.benchmarks.docvqa import DocVQA
from llava.evaluation.benchmarks.gqa import GQA
from llava.evaluation.benchmarks.hallusion import HallusionBench
from llava.evaluation.benchmarks.llava_bench import LLaVABench
from llava.evaluation.benchmarks.mmbench import MMBench, MMBenchCN
from llava.evaluation.benchmarks.mme import MME
from llava.evaluation.benchmarks.mmmu import MMMU
from llava.evaluation.benchmarks.mmstar import MMStar
from llava.evaluation.benchmarks.mmvet import MMVet
from llava.evaluation.benchmarks.ocrbench import OCRBench
from llava.evaluation.benchmarks.pope import Pope
from llava.evaluation.benchmarks.refcoco import RefCOCO
from llava.evaluation.benchmarks.scienceqa import ScienceQA
from llava.evaluation.benchmarks.seed import Seed
from llava.evaluation.benchmarks.textvqa import TextVQA
from llava.evaluation.benchmarks.vizwiz import VizWiz
from llava.evaluation.benchmarks.vqav2 import VQAv2

BENCHMARKS: tuple[type[Benchmark], ...] = (
    Custom,
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
    MMVet,
    LLaVABench,
    RefCOCO,
    Captions,
    NoCaps,
    Flickr30k,
    MMMU,
    MMStar,
    AI2D,
    ChartQA,
    DocVQA,
    OCRBench,
    HallusionBench,
)
GROUP = "llava.benchmarks"


def get_benchmark(name: str) -> Benchmark:
    """A benchmark by its name, by the name of an entry point, or from a Python file (`path.py`, `path.py:Class`).

    Raises:
        SettingsError: there is none of that name, or the file does not hold one.
    """
    known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    if name in known:
        return known[name]()
    path, colon, own = name.partition(".py:")
    if colon or name.endswith(".py"):
        return _from_file(f"{path}.py" if colon else name, own)
    offered = [point for point in entry_points(group=GROUP) if point.name == name]
    if offered:
        return _checked(offered[0].load(), f"entry point {offered[0].value}")()
    names = ", ".join(sorted(known))
    raise SettingsError(f"benchmark: found {name!r}; expected one of {names}, or a Python file (my_benchmark.py)")


def _from_file(path: str, own: str) -> Benchmark:
    if storage.is_remote(path):
        raise SettingsError(f"benchmark: found {path}; expected a local file: code is not fetched and run")
    place = storage.local_path(path)
    spec = importlib.util.spec_from_file_location(place.stem, place)
    if spec is None or spec.loader is None or not place.is_file():
        raise SettingsError(f"benchmark: {path}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # the user named this file: it is theirs to run
    found = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Benchmark) and value.__module__ == module.__name__
    }
    if own and own not in found:
        raise SettingsError(f"benchmark: {path}: found {sorted(found)}; expected a subclass of Benchmark named {own!r}")
    chosen = [found[own]] if own else list(found.values())
    if len(chosen) != 1:
        expected = f"one subclass of Benchmark, or a name behind the file ({path}:MyClass)"
        raise SettingsError(f"benchmark: {path}: found {sorted(found)}; expected {expected}")
    return _checked(chosen[0], path)()


def _checked(value: object, where: str) -> type[Benchmark]:
    if not (inspect.isclass(value) and issubclass(value, Benchmark)):
        raise SettingsError(f"benchmark: {where}: found {value!r}; expected a subclass of Benchmark")
    if inspect.isabstract(value) or not getattr(value, "name", ""):
        missing = sorted(getattr(value, "__abstractmethods__", ())) or ["name"]
        raise SettingsError(f"benchmark: {where}: {value.__name__} lacks {', '.join(missing)}")
    return value
