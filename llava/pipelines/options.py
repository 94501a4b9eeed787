"""Options that several commands of `pipeline.py` share, and how their texts are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from llava import storage
from llava.errors import SettingsError

Build = Callable[..., Any]

ParamOption = Annotated[
    list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A pipeline parameter; repeat")
]
FileOption = Annotated[
    str | None, typer.Option("--params", help="YAML or JSON file of pipeline parameters (path or URI)")
]
PackageOption = Annotated[str, typer.Option("--package", help="full, from-<stage> or only-<stage>")]
LockOption = Annotated[Path | None, typer.Option("--images", help="Lock file of images [default: images.lock.json]")]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A pod label, for cost reports; repeat")
]
QueueOption = Annotated[str, typer.Option("--queue", help="Kueue LocalQueue")]
PriorityOption = Annotated[str, typer.Option("--priority", help="Kueue priority class")]


def read_parameters(file: str | None, given: list[str] | None) -> dict[str, Any]:
    """Parameters from a file, and over them those of the command line.

    Raises:
        SettingsError: the file is no mapping, or a pair has no `=`.
    """
    values: dict[str, Any] = {}
    if file:
        try:
            read = yaml.safe_load(storage.read_text(file))
        except yaml.YAMLError as error:
            raise SettingsError(f"{file}: not YAML: {error}") from error
        if not isinstance(read, dict):
            raise SettingsError(f"{file}: found {type(read).__name__}; expected a mapping of parameters")
        values.update(read)
    values.update(pairs(given, "--param"))
    return values


def pairs(given: list[str] | None, flag: str) -> Mapping[str, str]:
    """`NAME=VALUE` texts as a mapping.

    Raises:
        SettingsError: one has no `=` or no name.
    """
    found = {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise SettingsError(f"{flag}: found {pair!r}; expected NAME=VALUE")
        found[name] = value
    return found


def json_object(text: str, flag: str) -> dict[str, Any]:
    """A JSON object given as text.

    Raises:
        SettingsError: it is not JSON, or another kind of it.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{flag}: not JSON ({error}): {text!r}") from error
    if not isinstance(value, dict):
        raise SettingsError(f"{flag}: found {text!r}; expected a JSON object")
    return value
