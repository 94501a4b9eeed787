"""What a setting is to those who ask for it: the command line, the Kubeflow component, a pipeline parameter."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

Scalar = type[str] | type[int] | type[float] | type[bool]
_SCALARS: tuple[Scalar, ...] = (bool, int, float, str)


def scalar_type(info: FieldInfo) -> Scalar:
    """The scalar behind a setting's annotation: `Literal["a", "b"]` is str, `int | None` is int.

    Raises:
        TypeError: the field is no scalar, so it can be neither a flag nor a pipeline parameter.
    """
    return _scalar(info.annotation)


def default_of(info: FieldInfo) -> Any:
    """The default, or None for a required field as for one whose default is None."""
    return None if info.default is PydanticUndefined else info.default


def choices(info: FieldInfo) -> tuple[str, ...]:
    """The values a `Literal` setting admits; empty for any other."""
    inner = info.annotation
    return tuple(str(value) for value in get_args(inner)) if get_origin(inner) is Literal else ()


def _scalar(annotation: object) -> Scalar:
    for scalar in _SCALARS:
        if scalar is annotation:
            return scalar
    origin, args = get_origin(annotation), [arg for arg in get_args(annotation) if arg is not type(None)]
    if origin is Literal:
        kinds = {type(arg) for arg in args}
        if len(kinds) == 1:
            return _scalar(kinds.pop())
    elif origin in (Union, types.UnionType) and len(args) == 1:
        return _scalar(args[0])
    raise TypeError(f"{annotation!r}: a stage's settings are str, int, float or bool")
