"""A run's parameters in the types its package declares: what every way to start a run (run, submit, rerun, ...) uses.

From a command line all is text; from a YAML or JSON file a value may be what it means: a mapping for a parameter that
takes JSON as text (`finetune_overrides`, `train_job`) is written as that JSON (`llava.validation.as_text`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from llava.errors import SettingsError
from llava.suggestions import meant
from llava.validation import as_text

_LIST = "`python pipeline.py parameters`"


def check_arguments(spec: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as the package's types: text from a command line becomes numbers, booleans, JSON.

    Raises:
        SettingsError: naming every unknown, missing or unreadable argument at once.
    """
    declared = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    faults, values = [], {}
    for name, value in arguments.items():
        if name not in declared:
            faults.append(f"{name}: no such parameter; {meant(name, declared, _LIST)}")
            continue
        try:
            values[name] = as_parameter(value, declared[name]["parameterType"])
        except ValueError as error:
            faults.append(f"{name}: found {value!r}; expected {error}")
    missing = [
        n for n, d in declared.items() if not d.get("isOptional") and "defaultValue" not in d and n not in values
    ]
    faults += [f"{name}: missing; it is required: {declared[name].get('description', '')}" for name in missing]
    if faults:
        raise SettingsError("\n".join(f"pipeline parameter {fault}" for fault in faults))
    return values


def as_parameter(value: Any, kind: str) -> Any:
    """A value as a pipeline parameter of this kind.

    Args:
        value: text, or what a YAML or JSON file holds.
        kind: STRING, NUMBER_INTEGER, NUMBER_DOUBLE, BOOLEAN, LIST or STRUCT, as the package declares it.

    Raises:
        ValueError: it cannot be read as one; the message says what would be right.
    """
    if kind == "STRING":
        return as_text(value)
    if kind in ("NUMBER_INTEGER", "NUMBER_DOUBLE"):
        return _number(value, kind)
    expected_type = {"BOOLEAN": bool, "LIST": list, "STRUCT": dict}[kind]
    expected = {"BOOLEAN": "true or false", "LIST": "a JSON list", "STRUCT": "a JSON object"}[kind]
    if isinstance(value, str):
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError("JSON") from None
    if not isinstance(value, expected_type):
        raise ValueError(expected)
    return value


def _number(value: Any, kind: str) -> int | float:
    expected = "a whole number" if kind == "NUMBER_INTEGER" else "a number"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(expected)
    try:
        number = int(value) if kind == "NUMBER_INTEGER" else float(value)
    except (ValueError, OverflowError):
        raise ValueError(expected) from None
    if (not isinstance(value, str) and number != value) or number != number:
        raise ValueError(expected)
    return number
