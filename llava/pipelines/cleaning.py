"""What may be deleted of old runs: checkpoints and artifacts that no later run, schedule or registry refers to.

Read from three places, so that none of them has to be complete: the service (which runs there are, their states and
parameters, what their stages read), the store (what lies below the pipeline root, and the records of executions), and
the marker that `register` leaves beside a model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llava import storage
from llava.errors import SettingsError, StorageError
from llava.executor import RECORD_NAME, OutputRecord
from llava.pipelines.clustertest.runs import FINAL
from llava.pipelines.graph import STAGES, package_names, parameter_name
from llava.pipelines.registered import MARKER
from llava.pipelines.schedule_commands import schedules
from llava.pipelines.service import Service
from llava.stages.stage import load_stage
from llava.validation import validate

CHECKPOINTS = "checkpoints"
_PACKAGES = {f"llava-{name}" for name in package_names()}


@dataclass(frozen=True)
class KnownRun:
    """A run as the service lists it. `created` is a time that sorts, empty for a run it does not know any more."""

    run: str
    name: str
    state: str
    created: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def in_progress(self) -> bool:
        """Whether something may still be written by it."""
        return bool(self.created) and self.state not in FINAL


@dataclass
class Part:
    """One output of one execution: a folder or file below the root.

    Attributes:
        place: URI.
        run: id of the run that made it.
        stage: whose execution it is of.
        output: its name.
        files: objects of it, as URIs.
        bytes: of all of them.
        kept: why it stays; empty: it may go.
    """

    place: str
    run: str
    stage: str
    output: str
    files: list[str] = field(default_factory=list)
    bytes: int = 0
    kept: str = ""


@dataclass(frozen=True)
class CleaningPlan:
    """What is there, and what of it may go.

    Attributes:
        runs: every run that left something, newest first.
        old: ids of those beyond the newest ones.
        parts: everything the old runs left.
    """

    runs: list[KnownRun]
    old: list[str]
    parts: list[Part]

    @property
    def going(self) -> list[Part]:
        """The parts that may be deleted."""
        return [part for part in self.parts if not part.kept]


def plan_cleaning(
    service: Service, root: str, *, keep: int, only: Collection[str] = (), checkpoints_only: bool = False
) -> CleaningPlan:
    """Look at everything below a pipeline root; nothing is changed.

    Args:
        service: where the runs ran.
        root: the pipeline root.
        keep: so many of the newest finished runs stay whole; those in progress always do.
        only: ids of runs; then only these are old, whatever their age.
        checkpoints_only: leave every other artifact.

    Raises:
        SettingsError: a run of `only` is in progress, or left nothing.
        ServiceError, StorageError: one of the two does not answer; without both nothing is planned.
    """
    parts = _parts(root)
    known = known_runs(service)
    left = {part.run: known.get(part.run) or KnownRun(part.run, "unknown to Kubeflow", "", "") for part in parts}
    runs = sorted(left.values(), key=lambda run: run.created, reverse=True)
    for run in only:
        if (found := known.get(run)) and found.in_progress:
            raise SettingsError(f"run {run} is in progress ({found.state}): terminate it, or wait for its end")
        if run not in left:
            raise SettingsError(f"run {run}: nothing of it below {root}")
    finished = [run for run in runs if not run.in_progress]
    old = [run.run for run in finished if run.run in only] if only else [run.run for run in finished[keep:]]
    # A run that left nothing here may still have read what another left: it came from the cache, or failed early.
    later = [run for run in known.values() if run.run not in old]
    referred = _referred(service, later, [part for part in parts if part.run not in old])
    mine = [part for part in parts if part.run in old]
    ran = {(part.run, part.stage) for part in parts if part.output == RECORD_NAME}
    for part in mine:
        users = [
            run
            for run in later
            if (run.run, part.stage) not in ran and _may_share(run, known.get(part.run), part.stage)
        ]
        part.kept = f"run {users[0].run} may have it from the cache" if users else ""
        part.kept = part.kept or _why_kept(part, referred, checkpoints_only)
    return CleaningPlan(runs, old, mine)


def delete_parts(service: Service, plan: CleaningPlan) -> list[str]:
    """Delete what may go, and from the service the runs that lost more than checkpoints; returns their ids.

    The service's cache names artifacts by the run that made them, and does not look whether they are still there: with
    the run its entries go (backend/src/apiserver/storage/run_store.go, DeleteRun), so that no later run is given them.
    """
    known = {run.run for run in plan.runs if run.created}
    # The cache first: an artifact that is there and not named harms nobody.
    losing = list(dict.fromkeys(part.run for part in plan.going if part.output != CHECKPOINTS))
    for run in losing:
        if run in known:
            service.ask(lambda client, run=run: client.delete_run(run), f"run {run}")  # type: ignore[misc]
    for part in plan.going:
        for place in part.files:
            storage.delete(place)
    return losing


def known_runs(service: Service) -> dict[str, KnownRun]:
    """Every run that the service knows, archived ones too."""
    found: dict[str, KnownRun] = {}
    token = ""
    while True:
        page = service.ask(
            lambda client, token=token: client.list_runs(page_token=token, page_size=100, namespace=service.profile)  # type: ignore[misc]
        )
        for run in page.runs or []:
            config = run.runtime_config
            found[run.run_id] = KnownRun(
                run=run.run_id,
                name=str(run.display_name),
                state=str(run.state or ""),
                created=run.created_at.isoformat() if run.created_at else "",
                parameters=dict((config and config.parameters) or {}),
            )
        token = page.next_page_token or ""
        if not token:
            return found


def _parts(root: str) -> list[Part]:
    """Everything below the root that has the form <package>/<run>/<task>/<execution>/<output>, by output."""
    found: dict[str, Part] = {}
    for file in storage.list_files(root):
        words = file.path.split("/")
        if len(words) < 5 or words[0] not in _PACKAGES:
            continue  # not of a run of ours
        place = storage.join(root, *words[:5])
        part = found.setdefault(place, Part(place, words[1], words[2], words[4]))
        part.files.append(storage.join(root, file.path))
        part.bytes += file.size
    return list(found.values())


def _referred(service: Service, later: Iterable[KnownRun], parts: Iterable[Part]) -> dict[str, str]:
    """URI -> who refers to it."""
    found: dict[str, str] = {}
    for run in later:
        found.update(dict.fromkeys(_uris(run.parameters), f"run {run.run}"))
        for execution in service.executions(run.run):
            uris = (*execution.inputs.values(), *execution.outputs.values())
            found.update(dict.fromkeys(uris, f"run {run.run}"))
    for part in parts:
        if part.output == RECORD_NAME:
            record = validate(OutputRecord, storage.read_json(part.place), part.place)
            found.update(dict.fromkeys((*record.inputs.values(), *_uris(record.settings)), f"run {part.run}"))
    for schedule in schedules(service):
        config = schedule.runtime_config
        given = _uris(dict((config and config.parameters) or {}))
        found.update(dict.fromkeys(given, f"schedule {schedule.recurring_run_id}"))
    return found


def _may_share(run: KnownRun, maker: KnownRun | None, stage: str) -> bool:
    """Whether a run that did not run a stage itself can have its results from the cache of an older one.

    The API does not say what came from the cache. Two runs share a stage's results only if its parameters agree; that
    its inputs and its image agree too is not looked at, so this keeps rather too much.
    """
    if maker is None or stage not in STAGES:
        return False  # what the service does not know any more its cache does not name either
    names = [parameter_name(stage, setting) for setting in load_stage(stage).settings.model_fields]
    return run.created >= maker.created and all(run.parameters.get(n) == maker.parameters.get(n) for n in names)


def _uris(values: Mapping[str, Any]) -> list[str]:
    texts = [text for value in values.values() for text in str(value).replace("'", '"').replace('"', ",").split(",")]
    return [text.strip() for text in texts if storage.is_remote(text.strip())]


def _why_kept(part: Part, referred: Mapping[str, str], checkpoints_only: bool) -> str:
    place = part.place.rstrip("/")
    for uri, who in referred.items():
        named = uri.partition("?")[0].rstrip("/")
        if named == place or named.startswith(f"{place}/") or place.startswith(f"{named}/"):
            return f"{who} refers to it"
    try:
        if f"{place}/{MARKER}" in part.files:
            return f"registered as {storage.read_json(f'{place}/{MARKER}').get('name', 'a model')}"
    except StorageError as error:
        return f"its marker cannot be read: {error}"
    if checkpoints_only and part.output != CHECKPOINTS:
        return "not a checkpoint"
    return ""
