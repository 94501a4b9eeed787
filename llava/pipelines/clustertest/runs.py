"""The runs of a cluster test: started, watched, read back from the store, and removed with everything they made."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from llava import storage
from llava.config import validate
from llava.errors import StorageError, UserError
from llava.executor import RECORD_NAME, OutputRecord
from llava.pipelines.clustertest.pods import Pods
from llava.pipelines.earlier import run_folders
from llava.pipelines.service import Service, ServiceError

T = TypeVar("T")
FINAL = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
_PATIENCE_S = 180.0  # with an endpoint that does not answer: an ingress or a port-forward that starts again
_GONE_S = 120.0  # for pods to end after their run was deleted


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
        pods = [f"{pod.name} {pod.phase}" for pod in self.pods.of(run)] if self.pods else []
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

        Artifacts stay: they lie below the test's prefix, which its owner deletes when no pod writes there any more.
        """
        left = []
        for run in self.started:
            try:
                # Deleting a run deletes its workflow, and with it the pods and what they own.
                self.service.ask(lambda client, run=run: client.delete_run(run), f"run {run}")  # type: ignore[misc]
            except ServiceError as error:
                left.append(f"run {run}: {error}")
        if self.pods and self.started:
            say("waiting for the runs' pods to end")
            deadline = time.monotonic() + _GONE_S
            while (pods := self._pods_left()) and time.monotonic() < deadline:
                time.sleep(self.poll_s)
            left += [f"pod {name}" for name in pods]
        if self.started:
            try:
                self.service.delete_experiment(self.experiment)
            except ServiceError as error:
                left.append(f"experiment {self.experiment}: {error}")
        return left

    def _pods_left(self) -> list[str]:
        assert self.pods is not None
        try:
            return [p.name for run in self.started for p in self.pods.of(run) if p.phase in ("Pending", "Running")]
        except UserError:
            return []  # told by the probes that needed them

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


def remove_prefix(prefix: str) -> int:
    """Delete every object below a prefix; returns how many there were.

    Raises:
        StorageError: the store refused.
    """
    files = [storage.join(prefix, file.path) for file in storage.list_files(prefix)]
    for place in files:
        try:
            storage.delete(place)
        except StorageError as error:
            raise StorageError(f"{error}; {len(files)} objects lie below {prefix}") from error
    return len(files)
