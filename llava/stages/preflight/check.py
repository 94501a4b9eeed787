"""The one question every entry point asks before a stage runs: is anything wrong that can be known by now?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llava.errors import SettingsError
from llava.stages.preflight import places


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
        if stage in ("pretrain", "finetune") and not found:
            from llava.stages.preflight import train

            found += train.outputs(stage, settings, outputs)  # type: ignore[arg-type]  # one of the two
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
    if stage == "expand":
        from llava.stages.preflight import expand

        yield from expand.faults(settings, inputs, here)
    elif stage in ("pretrain", "finetune"):
        from llava.stages.preflight import train

        yield from train.faults(stage, settings, inputs, here)  # type: ignore[arg-type]  # one of the two
    elif stage in ("evaluate", "export"):
        from llava.stages.preflight import evaluate

        judge = evaluate.faults if stage == "evaluate" else evaluate.export_faults
        yield from judge(settings, inputs, here)
