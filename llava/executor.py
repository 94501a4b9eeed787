"""The door between Kubeflow and a stage: executor-input JSON in, the stage called, executor-output JSON out.

Every component runs `python -m llava.executor <stage> --executor-input {{$}}`; only this file knows that JSON.

Where outputs go: folders and files are written by the stage straight to the artifact's URI, because the
launcher would copy them file by file; the HTML report and the metrics are small and go to the artifact's local path,
from where the launcher uploads them. A local run has no launcher (`LLAVA_NO_LAUNCHER=1`): there they too go to the URI.

Beside its artifacts every execution leaves `llava-outputs.json` (`OutputRecord`): with it a later run finds the
artifacts of an earlier one.

On a cluster the stage itself is a child of this program, started again where that is right (`llava.stages.restarts`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from llava import accelerators, storage
from llava.errors import SettingsError, TransientError, UserError
from llava.launcher_paths import RECORD_NAME as RECORD_NAME
from llava.launcher_paths import launcher_path
from llava.manifest import redacted_settings
from llava.processes import die_with_parent, yield_idle_cores
from llava.retrying import Pauses
from llava.stages import restarts, spending
from llava.stages.finite import finite, finite_metrics
from llava.stages.preflight.check import require_sound
from llava.stages.remembered import note_uri, raise_remembered, remember
from llava.stages.stage import STAGE_MODULES, Stage, StageResult, load_stage, output_form, uri_parameter
from llava.validation import validate

USER_ERROR_EXIT = 2
# kfp hands a task's resource requests to its container as if they were parameters of it.
_REQUESTS = {"accelerator_count", "accelerator_type", "cpu_limit", "cpu_request", "memory_limit", "memory_request"}


class OutputRecord(BaseModel):
    """What one execution of a stage read and wrote; small, and at a place that follows from the run's root alone."""

    model_config = ConfigDict(extra="ignore")

    format_version: int = 1
    stage: str
    settings: dict[str, Any]
    inputs: dict[str, str] = Field(description="input name -> URI of the artifact")
    outputs: dict[str, str] = Field(description="output name -> URI of the artifact")
    metrics: dict[str, float] = Field(default_factory=dict)
    seconds: float
    finished_unix: float


def read_settings(stage: Stage, values: dict[str, Any]) -> BaseModel:
    """Settings from `inputs.parameterValues`.

    Integers may arrive as floats (JSON has one kind of number), an absent optional as null or not at all, and
    resource requests and the pipeline parameters they come from stand among the values though they are not ours.

    Raises:
        SettingsError: naming every unknown, missing or invalid setting at once.
    """
    given = {}
    for name, value in values.items():
        field = stage.settings.model_fields.get(name)
        others = _REQUESTS | {uri_parameter(slot) for slot in stage.inputs.model_fields}
        if value is None or name.startswith("pipelinechannel--") or (field is None and name in others):
            continue
        if field is not None and field.annotation is int and isinstance(value, float) and value.is_integer():
            value = int(value)
        given[name] = value
    return validate(stage.settings, given, f"{stage.name} settings")


def read_inputs(
    stage: Stage, artifacts: dict[str, Any], values: dict[str, Any] | None = None
) -> tuple[BaseModel, dict[str, str]]:
    """Inputs as (paths or URIs for the stage, URIs for the record): artifacts, and those given by URI.

    The launcher has already fetched artifacts; its copy is used where it exists, the URI where it does not.

    Raises:
        SettingsError: a required input is missing, or one is given twice.
    """
    uris = {name: value["artifacts"][0]["uri"] for name, value in artifacts.items() if value.get("artifacts")}
    for slot in stage.inputs.model_fields:
        uri = str((values or {}).get(uri_parameter(slot)) or "").strip()
        if uri and slot in uris:
            raise SettingsError(
                f"{stage.name}: {slot} comes as an artifact ({uris[slot]}) and by {uri_parameter(slot)} ({uri}); "
                "expected one of them"
            )
        if uri:
            uris[slot] = uri.rstrip("/")
    places = {}
    for name, uri in uris.items():
        local = launcher_path(uri) if storage.is_remote(uri) else None
        places[name] = str(local) if local is not None and local.exists() else uri
    return validate(stage.inputs, places, f"{stage.name} inputs"), uris


def place_outputs(stage: Stage, artifacts: dict[str, Any]) -> tuple[BaseModel, dict[str, str]]:
    """Output artifacts as (paths or URIs for the stage to write to, URIs); local folders are made."""
    uris = {name: value["artifacts"][0]["uri"] for name, value in artifacts.items()}
    missing = [name for name in stage.outputs.model_fields if name not in uris]
    if missing:
        raise SettingsError(
            f"{stage.name} outputs: {', '.join(missing)} missing from the executor input; "
            "is the component of this version?"
        )
    places = {}
    for name, info in stage.outputs.model_fields.items():
        uri, form = uris[name], output_form(info)
        small = form in ("html", "metrics")
        place = str(launcher_path(uri)) if small and not _no_launcher() else uri
        places[name] = place
        if not storage.is_remote(place):
            path = storage.local_path(place)
            (path if form == "folder" else path.parent).mkdir(parents=True, exist_ok=True)
    return validate(stage.outputs, places, f"{stage.name} outputs"), uris


def execute(stage: Stage, executor_input: dict[str, Any]) -> StageResult:
    """Run one stage as the executor input says, and write the executor output.

    Raises:
        UserError: whatever the stage found wrong; nothing was written to the executor output then.
    """
    inputs, outputs = executor_input.get("inputs", {}), executor_input["outputs"]
    settings = read_settings(stage, inputs.get("parameterValues", {}))
    input_places, input_uris = read_inputs(stage, inputs.get("artifacts", {}), inputs.get("parameterValues", {}))
    output_places, output_uris = place_outputs(stage, outputs.get("artifacts", {}))

    require_sound(stage.name, settings, input_places.model_dump())
    note = note_uri(output_folder(output_uris), stage.name, settings.model_dump(mode="json"), input_uris)
    spending.price_of_environment()  # a price that is none is better known before than after a training
    start = time.monotonic()
    asked = accelerators.asked_of_the_pod(inputs.get("parameterValues", {}))
    if not _no_launcher():
        print(f"{stage.name:<9} {accelerators.machine()}, {asked} accelerators asked for", file=sys.stderr, flush=True)
        accelerators.require(asked)
    if _no_launcher():  # a person is watching, who may have put right what stands behind a setting
        result = stage.run(settings, input_places, output_places)
    else:
        raise_remembered(note)
        try:
            with spending.holding(asked):
                result = stage.run(settings, input_places, output_places)
        except UserError as error:
            remember(note, stage.name, error)
            raise
    seconds = time.monotonic() - start

    told = {"stage_seconds": round(seconds, 3), "restarts": float(len(restarts.reasons_so_far()))}
    if "accelerator_hours" not in result.metrics:  # a training stage knows better: its ranks may be on other nodes
        told |= spending.spent(asked, seconds)
    metrics = finite_metrics(stage.name, {**result.metrics, **told})

    written: dict[str, Any] = {}
    for name, info in stage.outputs.model_fields.items():
        metadata = {"stage": stage.name, **finite(result.metadata.get(name, {}))}
        if output_form(info) == "metrics":
            metadata = dict(metrics)
            storage.write_json(getattr(output_places, name), metrics)
        declared = outputs["artifacts"][name]["artifacts"][0]
        written[name] = {
            "artifacts": [{"name": declared.get("name", name), "uri": output_uris[name], "metadata": metadata}]
        }
    record = OutputRecord(
        stage=stage.name,
        settings=redacted_settings(settings.model_dump(mode="json")),
        inputs=input_uris,
        outputs=output_uris,
        metrics=metrics,
        seconds=round(seconds, 3),
        finished_unix=time.time(),
    )
    storage.write_json(record_uri(output_uris), record.model_dump(mode="json"))
    # Last: its presence is what says that the task succeeded.
    storage.write_json(outputs["outputFile"], {"parameterValues": {}, "artifacts": written})
    return StageResult(metrics=metrics, metadata=result.metadata)


def output_folder(output_uris: dict[str, str]) -> str:
    """The folder that the artifacts of an execution share."""
    return next(iter(output_uris.values())).rstrip("/").rpartition("/")[0]


def record_uri(output_uris: dict[str, str]) -> str:
    """Where the record of an execution stands: beside its artifacts."""
    return storage.join(output_folder(output_uris), RECORD_NAME)


def guarded(name: str, work: Callable[[], object]) -> int:
    """Call `work` as a program does: 0, or 2 after a message for the user, or 1 after a traceback.

    What is worth another try is left to the process that supervises this one, where one does.
    """
    try:
        work()
    except TransientError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        if not restarts.is_supervised():
            return USER_ERROR_EXIT
        restarts.leave_reason(str(error))
        return restarts.TRANSIENT_EXIT
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return USER_ERROR_EXIT
    except Exception:
        traceback.print_exc()
        print(f"{name}: this is an error in the program, not in its input", file=sys.stderr, flush=True)
        return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: `python -m llava.executor <stage> --executor-input JSON`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.executor", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("stage", choices=sorted(STAGE_MODULES))
    parser.add_argument("--executor-input", required=True, metavar="JSON", help="what Kubeflow puts for {{$}}")
    arguments = parser.parse_args(argv)
    yield_idle_cores()
    if _no_launcher() or restarts.is_supervised():
        die_with_parent()
    # Progress is told by telemetry; a hub's bars only fill a pod's log.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

    def work() -> None:
        try:
            executor_input = json.loads(arguments.executor_input)
            executor_input["outputs"]["outputFile"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise SettingsError(
                f"--executor-input: not an executor input ({error!r}); Kubeflow fills it in for {{{{$}}}}"
            ) from error
        execute(load_stage(arguments.stage), executor_input)

    return guarded(arguments.stage, work)


def _no_launcher() -> bool:
    return os.environ.get("LLAVA_NO_LAUNCHER", "") == "1"


def program(module: str = "llava.executor") -> int:
    """What `python -m <module>` does: the stage at once in a local run, under a supervising process on a cluster."""
    if _no_launcher() or restarts.is_supervised():
        return main()
    pauses = Pauses(first=float(os.environ.get("LLAVA_RESTART_PAUSE_S", "10")))
    return restarts.supervise([sys.executable, "-m", module, *sys.argv[1:]], pauses=pauses)


if __name__ == "__main__":
    sys.exit(program())
