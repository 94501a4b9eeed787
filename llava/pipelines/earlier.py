"""Find the artifacts of an earlier run: on Kubeflow by what its API keeps, else by what its stages left in storage.

The API knows which URIs every stage of a run was given (`llava.pipelines.executions`). The store knows where it does
not, and for a run on this machine: every execution of a stage leaves `llava-outputs.json` beside its artifacts, at a
place that follows from root and run alone: `<root>/<pipeline>/<run>/...` on Kubeflow, `<root>/<run>/...` for a local
run. A stage that came from the cache left nothing in this run, but the stages after it name the artifacts they read; a
local run also lists everything in its `run.json`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llava import storage
from llava.errors import StorageError, UserError
from llava.executor import RECORD_NAME, OutputRecord
from llava.pipelines.executions import Execution
from llava.pipelines.graph import FLOW, package_names
from llava.validation import validate

RUN_RECORD = "run.json"
# Below a run's folder: the stage's, on Kubeflow one for its execution, and what the stage wrote.
_CHECKPOINT = re.compile(r"(?P<place>(?P<stage>[a-z]+)/([^/]+/)?checkpoints)/step-(?P<step>\d+)/manifest\.json$")


class RunNotFound(UserError):
    """No run of this name, or one whose artifacts are gone."""


@dataclass(frozen=True)
class EarlierRun:
    """What is known of an earlier run.

    Attributes:
        run: its id.
        artifacts: (stage, output) -> URI.
        arguments: pipeline parameters, where the run recorded them.
        checkpoints: stage -> URI of a folder with complete checkpoints, also of a stage that never finished.
    """

    run: str
    artifacts: Mapping[tuple[str, str], str]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    checkpoints: Mapping[str, str] = field(default_factory=dict)


def from_executions(run: str, found: Iterable[Execution]) -> EarlierRun:
    """The earlier run as the service's API tells it.

    Checkpoints are named for stages that began and did not end well; whether one is complete, the resumed stage sees.
    """
    artifacts: dict[tuple[str, str], str] = {}
    consumed: dict[tuple[str, str], str] = {}
    checkpoints: dict[str, str] = {}
    for execution in found:
        consumed.update({FLOW[execution.stage][slot]: uri for slot, uri in execution.inputs.items()})
        if execution.succeeded:
            artifacts.update({(execution.stage, output): uri for output, uri in execution.outputs.items()})
        if "checkpoints" in execution.outputs:
            checkpoints[execution.stage] = execution.outputs["checkpoints"]
    return EarlierRun(run, {**consumed, **artifacts}, checkpoints=checkpoints)


def run_folders(root: str, run: str) -> list[str]:
    """Where a run of one of our packages may lie below a pipeline root."""
    return [storage.join(root, run), *(storage.join(root, f"llava-{name}", run) for name in package_names())]


def find_run(root: str, run: str) -> EarlierRun:
    """Read what a run left below `root`.

    Args:
        root: the pipeline root: a folder, s3:// or minio://.
        run: the run's id on Kubeflow, or its folder's name locally.

    Raises:
        RunNotFound: nothing of this run lies there.
    """
    artifacts: dict[tuple[str, str], str] = {}
    consumed: dict[tuple[str, str], str] = {}
    arguments: dict[str, Any] = {}
    checkpoints: dict[str, tuple[int, str]] = {}
    searched = run_folders(root, run)
    found = False
    for folder in searched:
        for file in storage.list_files(folder):
            name = file.path.rsplit("/", 1)[-1]
            place = storage.join(folder, file.path)
            if name == RECORD_NAME:
                record = validate(OutputRecord, storage.read_json(place), place)
                artifacts.update({(record.stage, output): uri for output, uri in record.outputs.items()})
                flow = FLOW.get(record.stage, {})
                consumed.update({flow[slot]: uri for slot, uri in record.inputs.items() if slot in flow})
                found = True
            elif saved := _CHECKPOINT.match(file.path):
                uri = storage.join(folder, saved["place"])
                checkpoints[saved["stage"]] = max(checkpoints.get(saved["stage"], (0, "")), (int(saved["step"]), uri))
                found = True
            elif file.path == RUN_RECORD:
                local = storage.read_json(place)
                arguments = local.get("arguments", {})
                consumed.update(_named(local.get("outputs", {})))
                found = True
    if not found:
        raise RunNotFound(
            f"run {run!r}: nothing of it at {searched[0]} or below llava-<package>/{run} of {root}; "
            "expected the id of a run that wrote there (--root is the pipeline root of that run)"
        )
    return EarlierRun(
        run, {**consumed, **artifacts}, arguments, {stage: uri for stage, (_, uri) in checkpoints.items()}
    )


def pick(
    earlier: EarlierRun,
    wanted: Iterable[tuple[str, str]],
    optional: Collection[tuple[str, str]] = (),
    *,
    look: bool = True,
) -> dict[tuple[str, str], str]:
    """The URIs of the wanted artifacts; without those of the optional ones that there are not.

    Args:
        earlier: the run.
        wanted: (stage, output).
        optional: those that may be absent.
        look: whether to see that each is there, which needs the store.

    Raises:
        RunNotFound: the run made no such artifact, or storage no longer has it; the message names each.
    """
    faults, found = [], {}
    for stage, output in wanted:
        uri = earlier.artifacts.get((stage, output))
        fault = _why_unusable(stage, output, uri, look)
        if uri and not fault:
            found[stage, output] = uri
        elif (stage, output) not in optional:
            faults.append(f"{output} of {stage}: {fault}")
    if faults:
        raise RunNotFound(f"run {earlier.run!r} cannot be continued:\n  " + "\n  ".join(faults))
    return found


def _why_unusable(stage: str, output: str, uri: str | None, look: bool) -> str:
    if uri is None:
        return "the run has none; it stopped before, or its id is of another package"
    if not look:
        return ""
    try:
        there = storage.exists(uri)
    except StorageError as error:
        return str(error)
    return "" if there else f"{uri} is gone (deleted or expired); run {stage} again"


def _named(outputs: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Pipeline outputs of a local run that some stage takes, by their producer."""
    sources = {source for inputs in FLOW.values() for source in inputs.values()}
    return {(stage, output): outputs[output]["uri"] for stage, output in sources if output in outputs}
