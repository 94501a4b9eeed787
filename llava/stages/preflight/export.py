"""Preflight of an export: precisions, the model, libraries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from llava import extras
from llava.errors import UserError
from llava.stages.preflight import places

if TYPE_CHECKING:
    from llava.stages.export import Settings


def faults(settings: Settings, inputs: Mapping[str, str], here: bool) -> Iterator[str]:
    """What is wrong with an export."""
    from llava.export.precisions import parse_precisions

    try:
        parse_precisions(settings.precisions)
    except UserError as error:
        yield str(error)
    if here and (found := extras.fault("export", "export")):
        yield found
    if here and inputs.get("model"):
        yield from places.model("model", inputs["model"])
