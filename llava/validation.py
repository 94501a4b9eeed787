"""Checking what was read against a pydantic model, with errors that say what would be right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from llava.errors import SettingsError
from llava.suggestions import meant

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """A model in which an unknown field is an error: a typo must not silently become a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def validate(model: type[M], data: Any, source: str) -> M:
    """Validate `data` as `model`, with errors that name source, field, value and what would be right.

    Raises:
        SettingsError: listing every fault at once.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            field = ".".join(str(part) for part in fault["loc"]) or "(whole)"
            if fault["type"] == "extra_forbidden":
                lines.append(
                    f"{source}: {field}: unknown field (value {fault['input']!r}); "
                    f"{meant(str(fault['loc'][-1]), _known_fields(model, fault['loc']))}"
                )
            elif fault["type"] == "missing":
                lines.append(f"{source}: {field}: missing; it is required")
            elif fault["type"] == "value_error" and isinstance(fault["input"], dict):
                lines.append(f"{source}: {field}: {fault['msg'].removeprefix('Value error, ')}")
            else:
                lines.append(f"{source}: {field}: found {fault['input']!r}; {fault['msg']}")
        raise SettingsError("\n".join(lines)) from error


def as_text(value: Any) -> str:
    """A value for a parameter that takes text: text as it is, anything with structure as the JSON it stands for.

    Raises:
        ValueError: it holds what JSON has no form for (NaN, a date inside a mapping).
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping | list | tuple | bool):
        try:
            return json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"text, or a mapping or list that JSON can hold ({error})") from None
    return str(value)


def _known_fields(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    current: type[BaseModel] = model
    for part in loc[:-1]:
        field = current.model_fields.get(str(part))
        inner = (
            [
                t
                for t in (field.annotation, *getattr(field.annotation, "__args__", ()))
                if isinstance(t, type) and issubclass(t, BaseModel)
            ]
            if field
            else []
        )
        if not inner:
            break
        current = inner[0]
    return sorted(current.model_fields)
