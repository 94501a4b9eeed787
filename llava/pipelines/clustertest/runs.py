"""The runs of a cluster test: started, watched, read back from the store, and removed with everything they made."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from llava import storage
from llava.errors import StorageError, UserError
from llava.executor import RECORD_NAME, OutputRecord
from llava.pipelines.clustertest.pods import Pods
from llava.pipelines.earlier import run_folders
from llava.pipelines.service import Service, ServiceError, ServiceNotFound
from llava.retrying import Pauses
from llava.validation import validate

T = TypeVar("T")
FINAL = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
_PATIENCE_S = 180.0  # with an endpoint that does not answer: an ingress or a port-forward that starts again
_GONE_S = 120.0  # for pods to end after their run was deleted
_QUIET_S = 5.0  # without a new object, before a prefix counts as emptied
_ATTEMPTS = 3  # to remove a thing, with an endpoint that may be away for a moment
_PAUSES = Pauses(first=2.0)


class TimedOut(UserError):
    """A run did not come as far as expected in time."""


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        state: KFP's, one of `FINAL`.
        failed: display names of the tasks that failed, as the service has them.
        seconds: from its start, by this machine's clock.
    """

    state: str
    failed: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return f"{self.state}{', failed: ' + ', '.join(self.failed) if self.failed else ''}"


@dataclass
class Runs:
    """The test's runs, all in one experiment and below one pipeline root.

    Attributes:
        service: the endpoint.
        pods: the cluster, where it can be asked.
        experiment: name of the experiment; made for this test, so that it can be deleted.
        root: pipeline root.
        service_account: of the pods.
        timeout_s: seconds a run may take.
        poll_s: seconds between two questions.
        package_of: package name -> compiled file.
    """

    service: Service
    pods: Pods | None
    experiment: str
    root: str
    service_account: str | None
    timeout_s: float
    package_of: Callable[[str], Path]
    poll_s: float = 2.0
    started: dict[str, float] = field(default_factory=dict)

    def start(self, package: str, arguments: Mapping[str, Any], *, cache: bool = False) -> str:
        """Start a run of a package; returns its id."""
        run = self.service.submit(
            self.package_of(package),
            arguments,
            experiment=self.experiment,
            name=f"{self.experiment} {len(self.started) + 1} {package}",
            root=self.root,
            cache=cache,
            service_account=self.service_account,
        )
        self.started[run] = time.monotonic()
        return run

    def wait(self, run: str) -> Ended:
        """Stay with a run to its end.

        Raises:
            TimedOut: it took longer than a run may.
        """
        found = self.until(run, lambda: None)
        assert isinstance(found, Ended), "nothing else ends the waiting"
        return found

    def until(self, run: str, look: Callable[[], T | None]) -> T | Ended:
        """Wait until `look` finds something, or the run has ended; returns whichever came first.

        Raises:
            TimedOut: neither happened in time.
        """
        deadline = self.started[run] + self.timeout_s
        while True:
            if (found := look()) is not None:
                return found
            if (ended := self._ended(run)) is not None:
                return ended
            if time.monotonic() > deadline:
                raise TimedOut(f"run {run} has not ended after {self.timeout_s / 60:.0f} minutes: {self.where(run)}")
            time.sleep(self.poll_s)

    def where(self, run: str) -> str:
        """What is known of a run that is under way: its state, and its pods' phases."""
        state = self._state(run)[0]
        pods = (
            [f"{pod.name} {pod.phase}{f' ({pod.why})' if pod.why else ''}" for pod in self.pods.of(run)]
            if self.pods
            else []
        )
        return "; ".join([state, *pods])

    def records(self, run: str) -> list[OutputRecord]:
        """What the stages that ran in this run left beside their artifacts; a stage from the cache left nothing."""
        return [
            validate(OutputRecord, storage.read_json(place), place)
            for place in self._files(run)
            if place.rsplit("/", 1)[-1] == RECORD_NAME
        ]

    def has_checkpoint(self, run: str) -> bool | None:
        """True as soon as a complete checkpoint of the run lies in the store; None before."""
        return (
            any("/checkpoints/step-" in place and place.endswith("/manifest.json") for place in self._files(run))
            or None
        )

    def remove(self, say: Callable[[str], None]) -> list[str]:
        """Delete every run with its pods, and the experiment; returns what could not be deleted.

        The experiment is asked what runs it has: an interrupted request may have started one that nobody knows of.
        Artifacts stay: they lie below the test's prefix, which its owner deletes when no pod writes there any more.
        """
        try:
            experiment = self.service.find_experiment(self.experiment)
            if experiment is None:
                return []
            runs = list(dict.fromkeys([*self.service.runs_of(experiment), *self.started]))
        except ServiceError as error:
            return [f"runs and experiment {self.experiment}: {error}"]
        # Deleting a run deletes its workflow, and with it the pods and what they own.
        left = [fault for run in runs if (fault := self._removed(f"run {run}", "delete_run", run))]
        if self.pods and runs:
            say("waiting for the runs' pods to end")
            deadline = time.monotonic() + _GONE_S
            while (pods := self._pods_left(runs)) and time.monotonic() < deadline:
                time.sleep(self.poll_s)
            left += [f"pod {name}" for name in pods]
        if fault := self._removed(f"experiment {self.experiment}", "delete_experiment", experiment):
            left.append(fault)
        return left

    def _removed(self, what: str, method: str, name: str) -> str:
        """Why a thing could not be removed; empty when it is gone."""
        said = ""
        for _ in _PAUSES.attempts(most=_ATTEMPTS):
            try:
                self.service.ask(lambda client: getattr(client, method)(name), what)
            except ServiceNotFound:
                return ""
            except ServiceError as error:
                said = f"{what}: {error}"
            else:
                return ""
        return said

    def _pods_left(self, runs: Iterable[str]) -> list[str]:
        assert self.pods is not None
        try:
            every = [pod for run in runs for pod in self.pods.of(run, ending=True)]
        except UserError:
            return []  # told by the probes that needed them
        return [pod.name for pod in every if pod.phase in ("Pending", "Running")]

    def _files(self, run: str) -> list[str]:
        return [
            storage.join(folder, file.path)
            for folder in run_folders(self.root, run)
            for file in storage.list_files(folder)
        ]

    def _ended(self, run: str) -> Ended | None:
        state, failed = self._state(run)
        return Ended(state, failed, time.monotonic() - self.started[run]) if state in FINAL else None

    def _state(self, run: str) -> tuple[str, tuple[str, ...]]:
        patience = time.monotonic() + _PATIENCE_S
        while True:
            try:
                found = self.service.ask(lambda client: client.get_run(run), f"run {run}")
                break
            except ServiceError:
                if time.monotonic() > patience:
                    raise
                time.sleep(self.poll_s)
        tasks = (found.run_details and found.run_details.task_details) or []
        failed = dict.fromkeys(str(task.display_name) for task in tasks if task.state == "FAILED")
        return str(found.state), tuple(failed)


def remove_prefix(prefix: str, *, quiet_s: float | None = None) -> int:
    """Delete every object below a prefix; returns how many there were.

    A pod that nobody can look at may still be writing its last: the prefix counts as emptied when nothing new came for
    `quiet_s` seconds (`_QUIET_S`).

    Raises:
        StorageError: the store refused, or objects came and came.
    """
    removed, deadline = 0, time.monotonic() + _GONE_S
    while count := len(list(storage.list_files(prefix))):
        if time.monotonic() > deadline:
            raise StorageError(f"{count} objects below {prefix}: something still writes there")
        try:
            storage.delete(prefix)
        except StorageError as error:
            raise StorageError(f"{error}; {count} objects lay below {prefix}") from error
        removed += count
        with contextlib.suppress(StorageError):  # a right of its own, which not everybody has
            storage.delete_unfinished(prefix)
        time.sleep(_QUIET_S if quiet_s is None else quiet_s)
    return removed
