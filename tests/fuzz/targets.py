"""What is fuzzed: each target gives bytes to one reader, which may answer with a `UserError` or `Malformed` alone.

A target runs in a folder of its own; `guard.py` watches that nothing is written elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava import storage
from llava.config import load_recipe
from llava.errors import UserError
from llava.evaluation.benchmarks import BENCHMARKS, get_benchmark
from llava.parsing import Malformed, parse_json, parse_rows, parse_yaml
from llava.validation import validate

if TYPE_CHECKING:
    from llava.expansion.recipe.kinds import ExpansionRecipe

Target = Callable[[bytes, Path], object]
EXPECTED = (UserError, Malformed)
TARGETS: dict[str, Target] = {}


def target(function: Target) -> Target:
    """Register a target under its function's name."""
    TARGETS[function.__name__] = function
    return function


def _file(folder: Path, name: str, data: bytes) -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


@target
def json_text(data: bytes, folder: Path) -> object:
    """`parse_json`, and what it gave is plain JSON again."""
    value = parse_json(data)
    json.dumps(value, allow_nan=False)
    return parse_rows(data)


@target
def yaml_text(data: bytes, folder: Path) -> object:
    """`parse_yaml`, and what it gave can be walked and shown."""
    value = parse_yaml(data.decode("utf-8", "replace"))
    return len(repr(value))


@target
def recipe(data: bytes, folder: Path) -> object:
    """A training recipe."""
    return load_recipe(_file(folder, "recipe.yaml", data))


@target
def overrides(data: bytes, folder: Path) -> object:
    """Overrides of a recipe, as the setting has them."""
    return load_recipe("tiny", data.decode("utf-8", "replace"))


@target
def prices(data: bytes, folder: Path) -> object:
    """A price table."""
    from llava.expansion.asking.prices import load_prices

    return load_prices(_file(folder, "prices.yaml", data))


@target
def mixture(data: bytes, folder: Path) -> object:
    """A mixture file."""
    from llava.expansion.rows.mixture import load_mixture

    return load_mixture(_file(folder, "mixture.yaml", data))


@target
def records(data: bytes, folder: Path) -> object:
    """A file of LLaVA rows; every problem can be shown."""
    from llava.data.records import read_records

    file = read_records(_file(folder, "rows.json", data))
    return [str(problem) for problem in file.problems], list(file.records)


@target
def coco(data: bytes, folder: Path) -> object:
    """COCO captions, or a caption list, whichever the file turns out to be."""
    from llava.expansion.sources.opening import open_corpus

    corpus = open_corpus(_file(folder, "captions_train.json", data), split="train", image_prefix="")
    return list(corpus), [str(problem) for problem in corpus.problems]


@target
def instances(data: bytes, folder: Path) -> object:
    """COCO boxes beside sound captions."""
    from llava.expansion.sources.opening import open_corpus

    images = [{"id": 1, "file_name": "1.jpg", "width": 10, "height": 10}]
    captions = {"images": images, "annotations": [{"id": 1, "image_id": 1, "caption": "a dog"}]}
    both = [
        _file(folder, "captions_train.json", json.dumps(captions).encode()),
        _file(folder, "instances_train.json", data),
    ]
    return list(open_corpus(",".join(both), split="train", image_prefix=""))


@target
def caption_list(data: bytes, folder: Path) -> object:
    """The forms of a caption list, chosen by the first byte."""
    from llava.expansion.sources.opening import open_corpus

    ending = ("csv", "tsv", "jsonl", "json")[data[0] % 4 if data else 0]
    return list(open_corpus(_file(folder, f"list.{ending}", data[1:]), split="train", image_prefix=""))


@target
def blocklist(data: bytes, folder: Path) -> object:
    """A block-list."""
    from llava.expansion.gates.blocklist import read_blocklist

    return read_blocklist(_file(folder, "blocked.txt", data))


@cache
def _coco() -> ExpansionRecipe:
    from llava.expansion.recipe.kinds import load_expansion_recipe

    return load_expansion_recipe("coco")  # reading it takes 90 ms, a reply far less than one


@target
def reply(data: bytes, folder: Path) -> object:
    """A teacher's reply, in each form."""
    from llava.expansion.recipe.grammar import GrammarError

    for kind in _coco().kinds.values():
        try:
            kind.grammar.parse(data.decode("utf-8", "replace"))
        except GrammarError:
            continue
    return None


@target
def image(data: bytes, folder: Path) -> object:
    """An image file."""
    from llava.data.images import ImageSource

    _file(folder, "a.jpg", data)
    source = ImageSource(str(folder))
    try:
        size = source.header("a.jpg")
    except UserError:
        size = None
    loaded = source.load("a.jpg")
    assert size is None or loaded.size == size
    return loaded


@target
def reference(data: bytes, folder: Path) -> object:
    """A row's reference to an image; whatever it is, only what lies in the folder may be read."""
    from llava.data.images import ImageSource

    (folder / "inside").mkdir()
    (folder / "secret").write_bytes(b"secret")
    read = ImageSource(str(folder / "inside")).read(data.decode("utf-8", "surrogateescape"))
    assert read != b"secret"
    return read


@target
def local_name(data: bytes, folder: Path) -> object:
    """A name from a listing, as the place of a file."""
    from llava import local_files

    place = local_files.below(folder, data.decode("utf-8", "surrogateescape"))
    assert place.resolve().is_relative_to(folder.resolve())
    return place


@target
def shard_index(data: bytes, folder: Path) -> object:
    """The index of packed images."""
    from llava.data.shards import ShardIndex

    return ShardIndex.read(_file(folder, "index.json", data))


@target
def manifest(data: bytes, folder: Path) -> object:
    """An artifact's manifest."""
    from llava.manifest import read_manifest

    _file(folder, "manifest.json", data)
    return read_manifest(str(folder))


@target
def model_config(data: bytes, folder: Path) -> object:
    """A model's config.json, as far as it is looked at before transformers is."""
    from llava.model.sources import check_config

    check_config(storage.read_json(_file(folder, "config.json", data)), "config.json")
    return None


@target
def executor_input(data: bytes, folder: Path) -> object:
    """What Kubeflow hands a stage, up to its validated settings."""
    from llava.executor import read_settings
    from llava.stages.stage import load_stage

    value = parse_json(data)
    return read_settings(load_stage("expand"), value if isinstance(value, dict) else {})


@target
def job(data: bytes, folder: Path) -> object:
    """The description of a training job."""
    from llava.training.job import Job

    return validate(Job, parse_json(data), "job.json")


@target
def predictions(data: bytes, folder: Path) -> object:
    """Answers found on disk."""
    from llava.evaluation.predictions import PredictionLog

    _file(folder, "finetuned.jsonl", data)
    return PredictionLog(str(folder), "finetuned", {"a": "f"}).answers


@target
def report_numbers(data: bytes, folder: Path) -> object:
    """Numbers of any size in a report."""
    import struct

    from llava.report import Report

    count = len(data) // 8
    numbers = list(struct.unpack(f"<{count}d", data[: count * 8]))
    points = list(zip(numbers[::2], numbers[1::2], strict=False))
    report = Report("t").figures({"a": numbers[0] if numbers else 0.0}).histogram("h", numbers, x="x")
    return report.line_chart("l", {"s": points}, x="x", y="y").html()


def _benchmark(name: str) -> Target:
    def read(data: bytes, folder: Path) -> object:
        """A benchmark's question file(s): the same bytes under each form's ending."""
        first = _file(folder, f"questions.{('json', 'jsonl', 'tsv')[data[0] % 3] if data else 'json'}", data[1:])
        uri = first if not data or data[0] < 128 else f"{first},{_file(folder, 'second.json', data[1:])}"
        return get_benchmark(name).read(uri)

    return read


for _each in BENCHMARKS:
    TARGETS[f"benchmark_{_each.name}"] = _benchmark(_each.name)


def run(name: str, data: bytes, folder: Path) -> Any:
    """One case; an expected refusal is None."""
    try:
        return TARGETS[name](data, folder)
    except EXPECTED:
        return None
