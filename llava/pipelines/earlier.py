"""Find the artifacts of an earlier run by what its stages left in storage; no service needs to answer for it.

Every execution of a stage leaves `llava-outputs.json` beside its artifacts, at a place that follows from root and
run alone: `<root>/<pipeline>/<run>/...` on Kubeflow, `<root>/<run>/...` for a local run. A stage that came from the
cache left nothing in this run, but the stages after it name the artifacts they read; a local run also lists
everything in its `run.json`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llava import storage
from llava.config import validate
from llava.errors import StorageError, UserError
from llava.executor import RECORD_NAME, OutputRecord
from llava.pipelines.graph import FLOW, package_names

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


def pick(earlier: EarlierRun, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The URIs of the wanted artifacts, each seen to be there.

    Raises:
        RunNotFound: the run made no such artifact, or storage no longer has it; the message names each.
    """
    faults, found = [], {}
    for stage, output in wanted:
        uri = earlier.artifacts.get((stage, output))
        if uri is None:
            faults.append(f"{output} of {stage}: the run has none; it stopped before, or its id is of another package")
            continue
        try:
            there = storage.exists(uri)
        except StorageError as error:
            faults.append(f"{output} of {stage}: {error}")
            continue
        if not there:
            faults.append(f"{output} of {stage}: {uri} is gone (deleted or expired); run {stage} again")
            continue
        found[stage, output] = uri
    if faults:
        raise RunNotFound(f"run {earlier.run!r} cannot be continued:\n  " + "\n  ".join(faults))
    return found


def _named(outputs: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Pipeline outputs of a local run that some stage takes, by their producer."""
    sources = {source for inputs in FLOW.values() for source in inputs.values()}
    return {(stage, output): outputs[output]["uri"] for stage, output in sources if output in outputs}
