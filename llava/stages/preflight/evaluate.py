"""Preflight of evaluation: benchmark and questions, the model, libraries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from llava import extras, storage
from llava.errors import UserError
from llava.stages.preflight import places

if TYPE_CHECKING:
    from llava.stages.evaluate import Settings

_READ_AT_ONCE = 32 << 20  # a question file above this is not read twice


def faults(settings: Settings, inputs: Mapping[str, str], here: bool) -> Iterator[str]:
    """What is wrong with an evaluation."""
    from llava.evaluation.benchmarks import get_benchmark
    from llava.evaluation.suite import places as places_of
    from llava.evaluation.suite import suite_of

    own = any(ending in settings.benchmark for ending in (".py", ".yaml", ".yml"))
    suite = None
    try:
        if here or not own:
            suite = suite_of(settings.benchmark)
    except UserError as error:
        yield str(error)
    if not here:
        return
    if found := extras.fault("evaluate", "train", ["torch", "transformers", "safetensors", "tokenizers"]):
        yield found
    questions = places.parts(settings.questions_uri)
    if not questions:
        yield f"questions_uri: empty; expected the questions of {settings.benchmark}: its folder, or its files"
    absent = [fault for uri in questions for fault in places.exists("questions_uri", uri)]
    yield from absent
    yield from places.folders("images_uri", settings.images_uri)
    if suite is not None and questions and not absent:
        try:
            for column, uri, _ in places_of(suite, settings.questions_uri, settings.images_uri):
                if _small(places.parts(uri)):
                    get_benchmark(column.benchmark).read(uri)
        except UserError as error:
            yield f"questions_uri: {error}"
    if inputs.get("model"):
        yield from places.model("model", inputs["model"])
    if inputs.get("projector"):
        yield from places.exists("projector", inputs["projector"], "folder")


def _small(questions: list[str]) -> bool:
    if any(storage.is_remote(uri) for uri in questions):
        return False
    paths = [storage.local_path(uri) for uri in questions]
    return all(path.is_file() and path.stat().st_size <= _READ_AT_ONCE for path in paths)
