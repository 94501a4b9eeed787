"""The one question every entry point asks before a stage runs: is anything wrong that can be known by now?"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from llava.errors import SettingsError
from llava.stages.preflight import places

# By name, as stages are: an image holds the check of its own stages and nothing that the others import.
PREFLIGHT_MODULES = {
    "expand": "llava.stages.preflight.expand",
    "pretrain": "llava.stages.preflight.train",
    "finetune": "llava.stages.preflight.train",
    "evaluate": "llava.stages.preflight.evaluate",
    "export": "llava.stages.preflight.export",
}
_TRAINING = ("pretrain", "finetune")


def faults_of(
    stage: str,
    settings: Any,
    inputs: Mapping[str, str | None] | None = None,
    outputs: Mapping[str, str] | None = None,
    *,
    here: bool = True,
) -> list[str]:
    """Every fault of a stage that can be seen without doing its work.

    Args:
        stage: its name; of one that is not ours nothing is known.
        settings: its validated settings.
        inputs: paths or URIs; one that an earlier stage has yet to make is absent.
        outputs: where it will write, where that is known.
        here: the stage runs on this machine: files, keys, libraries, disk and memory are looked at too. Of a stage that
            runs elsewhere only its settings can be judged.
    """
    given = {name: uri for name, uri in (inputs or {}).items() if uri}
    found = list(_stage(stage, settings, given, here))
    if here and outputs:
        for name, uri in outputs.items():
            if unwritable := list(places.writable(name, uri)):
                found += unwritable
                break  # the others stand beside it as a rule
        if stage in _TRAINING and not found:
            found += importlib.import_module(PREFLIGHT_MODULES[stage]).outputs(stage, settings, outputs)
    return list(dict.fromkeys(found))


def require_sound(
    stage: str,
    settings: Any,
    inputs: Mapping[str, str | None] | None = None,
    outputs: Mapping[str, str] | None = None,
) -> None:
    """Raise what `faults_of` finds of a stage about to run here.

    Raises:
        SettingsError: a line for each fault.
    """
    found = faults_of(stage, settings, inputs, outputs)
    if found:
        raise SettingsError("\n".join(found))


def _stage(stage: str, settings: Any, inputs: Mapping[str, str], here: bool) -> Iterator[str]:
    if stage not in PREFLIGHT_MODULES:
        return
    faults = importlib.import_module(PREFLIGHT_MODULES[stage]).faults
    yield from faults(stage, settings, inputs, here) if stage in _TRAINING else faults(settings, inputs, here)
