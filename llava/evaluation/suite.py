"""Which benchmarks a run asks: one, several by name, or a suite file with the columns of its table.

    title: mine
    benchmarks:
      - {benchmark: pope, questions: eval/pope, images: coco/val2014, title: POPE, scale: 100}
      - {benchmark: ./counting.py, questions: counting.jsonl}
    published:
      - {model: somebody's, values: {pope: 85.9}}

`questions` and `images` are places below `--questions-uri`, or whole paths and URIs.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from pydantic import BaseModel, ConfigDict, Field

from llava import storage
from llava.errors import DataError, SettingsError
from llava.evaluation.benchmarks import get_benchmark
from llava.evaluation.layouts import is_folder
from llava.parsing import parse_yaml
from llava.validation import validate

_FILES = (".yaml", ".yml")
_FOLDERS = {"seed": "seed_bench", "llava-bench": "llava-bench-in-the-wild"}  # LLaVA-1.5's names, where others


class Column(BaseModel):
    """One benchmark of a suite.

    Attributes:
        benchmark: its name, or a Python file.
        questions: its folder or files; empty: the folder of its name.
        images: its images' folder; empty: where they usually stand.
        title: the table's heading; empty: its name.
        figure: which of its figures; empty: its headline.
        scale: what our figure is multiplied with, for the unit people quote.
        digits: behind the decimal point.
        limit: ask only the first so many questions; 0: all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str = Field(min_length=1)
    questions: str = ""
    images: str = ""
    title: str = ""
    figure: str = ""
    scale: float = 1.0
    digits: int = Field(1, ge=0, le=6)
    limit: int = Field(0, ge=0)

    @property
    def key(self) -> str:
        """Names its predictions, its metrics and its published values: a file's stem for a benchmark of one's own."""
        return self.benchmark.partition(".py")[0].rpartition("/")[2]


class Published(BaseModel):
    """A row of published values, by the columns' keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    values: dict[str, float]


class Suite(BaseModel):
    """Benchmarks in the order of the table's columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = ""
    benchmarks: list[Column] = Field(min_length=1)
    published: list[Published] = Field(default_factory=list)

    @property
    def several(self) -> bool:
        """Whether predictions and metrics are told apart by benchmark."""
        return len(self.benchmarks) > 1 or bool(self.title)


def bundled() -> list[str]:
    """Names of the suites that come with the package."""
    folder = resources.files("llava.evaluation.suites")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def suite_of(setting: str) -> Suite:
    """The suite that `--benchmark` means: a name, names separated by commas, a suite's name or a suite file.

    Names get the columns (title, scale, published values) that a bundled suite has for them.

    Raises:
        SettingsError: no such benchmark or suite, a benchmark twice, or a wrong field in the file.
        StorageError: the file cannot be read.
    """
    names = [name.strip() for name in setting.split(",") if name.strip()]
    if len(names) == 1 and (names[0] in bundled() or names[0].endswith(_FILES)):
        suite = _read(names[0])
    else:
        known = {column.benchmark: column for name in bundled() for column in _read(name).benchmarks}
        rows = [row for name in bundled() for row in _read(name).published]
        columns = [known.get(name) or Column(benchmark=name) for name in names or [setting]]
        keys = {column.key for column in columns}
        suite = Suite(benchmarks=columns, published=[row for row in rows if keys & set(row.values)])
    keys_in_order = [column.key for column in suite.benchmarks]
    twice = sorted({key for key in keys_in_order if keys_in_order.count(key) > 1})
    if twice:
        raise SettingsError(f"benchmark: {setting}: {', '.join(twice)} more than once; expected each benchmark once")
    for column in suite.benchmarks:
        get_benchmark(column.benchmark)  # an unknown name is an error before anything is read
    return suite


def places(suite: Suite, questions_uri: str, images_uri: str) -> list[tuple[Column, str, str]]:
    """Each column with its questions and its images (empty: the benchmark knows).

    Raises:
        DataError: naming every benchmark that has no folder below `questions_uri`, and what was looked for.
    """
    if not suite.several:
        column = suite.benchmarks[0]
        return [(column, questions_uri, images_uri)]
    if not is_folder(questions_uri):
        raise DataError(f"questions_uri: found {questions_uri}; expected the folder that holds each benchmark's folder")
    found, missing = [], []
    for column in suite.benchmarks:
        questions = _below(questions_uri, column.questions) if column.questions else _folder(questions_uri, column.key)
        if questions is None:
            missing.append(f"{column.key} ({' or '.join(_names(column.key))})")
            continue
        images = _below(questions_uri, column.images) if column.images else images_uri
        found.append((column, questions, images))
    if missing:
        raise DataError(
            f"{questions_uri}: no folder for {', '.join(missing)}; expected one for each of the "
            f"{len(suite.benchmarks)} benchmarks, or name fewer with --benchmark a,b,c"
        )
    return found


def _names(key: str) -> Sequence[str]:
    return tuple(dict.fromkeys((key, _FOLDERS.get(key, key), key.replace("-", "_"), key.upper())))


def _folder(root: str, key: str) -> str | None:
    return next((place for name in _names(key) if _there(place := storage.join(root, name))), None)


def _there(folder: str) -> bool:
    return storage.exists(folder) or next(iter(storage.list_files(folder)), None) is not None


def _below(root: str, place: str) -> str:
    parts = [part.strip() for part in place.split(",")]
    return ",".join(part if "://" in part or part.startswith("/") else storage.join(root, part) for part in parts)


def _read(name: str) -> Suite:
    if name.endswith(_FILES):
        return validate(Suite, storage.read_yaml(name), name)
    text = (resources.files("llava.evaluation.suites") / f"{name}.yaml").read_text(encoding="utf-8")
    return validate(Suite, parse_yaml(text), name)
