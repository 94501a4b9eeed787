"""A stage called by its fields' names, as the command line and Python do: checked, run, its metrics written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llava import storage
from llava.errors import SettingsError
from llava.stages.finite import finite_metrics
from llava.stages.preflight.check import require_sound
from llava.stages.stage import Stage, output_form
from llava.validation import as_text, validate

SUFFIX = {"folder": "", "file": ".json", "html": ".html", "metrics": ".json"}
"""Form of an output -> how the name of its file below `out` ends."""


@dataclass(frozen=True)
class Called:
    """What a stage left.

    Attributes:
        metrics: its figures by name.
        places: URI of every output by name.
    """

    metrics: dict[str, float]
    places: dict[str, str]


def call(stage: Stage, values: Mapping[str, Any]) -> Called:
    """Check values, run the stage, write its metrics.

    Args:
        stage: which.
        values: settings, inputs and outputs by name, and `out`, below which every output goes that is not named;
            None stands for one that was not given.

    Raises:
        UserError: a value is wrong, or whatever the stage found.
    """
    who = f"llava {stage.name}"
    given = {name: value for name, value in values.items() if value is not None}
    models = (stage.settings, stage.inputs, stage.outputs)
    unknown = sorted(set(given) - {"out"} - {name for model in models for name in model.model_fields})
    if unknown:
        raise SettingsError(f"{who}: {', '.join(unknown)}: no such setting, input or output; `{who} --help` names them")
    settings = validate(stage.settings, _settings(stage, given, who), who)
    inputs = validate(stage.inputs, {k: v for k, v in given.items() if k in stage.inputs.model_fields}, who)
    places = {}
    for name, info in stage.outputs.model_fields.items():
        if name in given:
            places[name] = given[name]
        elif "out" in given:
            places[name] = storage.join(given["out"], name + SUFFIX[output_form(info)])
        else:
            raise SettingsError(f"{who}: nowhere to write {name!r}; give --out, or --{name.replace('_', '-')}")
    outputs = validate(stage.outputs, places, who)
    require_sound(stage.name, settings, inputs.model_dump(), places)
    metrics = finite_metrics(stage.name, stage.run(settings, inputs, outputs).metrics)
    for name, info in stage.outputs.model_fields.items():
        if output_form(info) == "metrics":
            storage.write_json(places[name], metrics)
    return Called(metrics, places)


def _settings(stage: Stage, given: Mapping[str, Any], who: str) -> dict[str, Any]:
    """The settings among the values; a mapping or list for one that takes text is the JSON it stands for."""
    found = {}
    for name, value in given.items():
        info = stage.settings.model_fields.get(name)
        if info is None:
            continue
        try:
            found[name] = as_text(value) if info.annotation is str and isinstance(value, dict | list) else value
        except ValueError as error:
            raise SettingsError(f"{who}: {name}: found {value!r}; expected {error}") from None
    return found
