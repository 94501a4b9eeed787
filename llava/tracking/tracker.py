"""Sends a run's points to its trackers beside the training, which never waits for one longer than a moment.

One thread does all the talking. What a tracker did not take is kept and offered again; one that fails again and again
is left alone for the rest of this process, counted and said. When the run resumes, what it lacks is sent from the
history in the checkpoint.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from llava import storage
from llava.errors import StorageError
from llava.parsing import Malformed
from llava.redaction import redact, redact_all
from llava.telemetry import Telemetry
from llava.tracking.destinations import Destination
from llava.tracking.sink import About, Point, Sink

IDENTITIES = "tracking.json"
PATIENCE = 5  # failures in a row
FLUSH_WAIT_S = 20.0  # before a checkpoint is written
CLOSE_WAIT_S = 60.0
FAILED_WAIT_S = 15.0  # a run that failed is to say so soon
UPLOAD_EVERY_S = 30.0
MOST_KEPT = 50_000  # points a tracker that is away may be behind

Maker = Callable[[Destination, About, str | None], Sink]


def make_sink(destination: Destination, about: About, identity: str | None) -> Sink:
    """The sink of a destination; its library is imported here and nowhere else."""
    if destination.kind == "tensorboard":
        from llava.tracking.tensorboard_sink import TensorBoardSink

        return TensorBoardSink(destination.place, about, identity)
    if destination.kind == "mlflow":
        from llava.tracking.mlflow_sink import MlflowSink

        return MlflowSink(destination.place, about, identity)
    from llava.tracking.wandb_sink import WandbSink

    return WandbSink(destination.place, about, identity)


@dataclass
class _Line:
    """One destination, its sink once it could be made, and what it has not taken yet."""

    destination: Destination
    sink: Sink | None = None
    pending: list[Point] = field(default_factory=list)
    failures: int = 0
    lost: int = 0

    @property
    def off(self) -> bool:
        return self.failures >= PATIENCE


class Tracker:
    """All trackers of a run. Used on rank 0 alone, as a context; without destinations it does nothing.

    Args:
        destinations: where to.
        about: the run.
        history: points up to the step that is resumed from; each tracker gets those it lacks.
        earlier: folder of the run that is continued, whose trackers' runs are continued too; empty: none.
        telemetry: gets a note and a count of every failure.
        make: makes a destination's sink.
    """

    def __init__(
        self,
        destinations: Sequence[Destination],
        about: About,
        history: Sequence[Point],
        telemetry: Telemetry,
        *,
        earlier: str = "",
        make: Maker = make_sink,
    ) -> None:
        self._about = about
        self._history = list(history)
        self._telemetry = telemetry
        self._earlier = earlier
        self._make = make
        self._lines = [_Line(destination) for destination in destinations]
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._summary: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        if self._lines:
            self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
            self._thread.start()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        finished = error is None
        self._queue.put(lambda: self._close(finished))
        self._queue.put(None)
        self._thread.join(CLOSE_WAIT_S if finished else FAILED_WAIT_S)
        for line in self._lines:
            behind = line.lost + len(line.pending)
            if behind or line.off:
                self._telemetry.note(
                    f"tracking: {line.destination.kind} lacks {behind} points; the report has them all"
                )

    def log(self, points: Sequence[Point]) -> None:
        """Send points; returns at once."""
        if self._thread is not None and points:
            sent = list(points)
            self._queue.put(lambda: self._write(sent))

    def flush(self) -> None:
        """Before a checkpoint: what was logged is where it belongs, unless a tracker lets us wait too long."""
        if self._thread is None:
            return
        done = threading.Event()
        self._queue.put(lambda: self._flush(done))
        done.wait(FLUSH_WAIT_S)

    def summary(self, values: dict[str, float]) -> None:
        """Figures of the whole run, sent at its end."""
        self._summary = dict(values)

    def _work(self) -> None:
        self._begin()
        flushed = time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                task = self._queue.get(timeout=UPLOAD_EVERY_S)
                if task is None:
                    return
                task()
            if time.monotonic() - flushed > UPLOAD_EVERY_S:
                self._flush(None)
                flushed = time.monotonic()

    def _begin(self) -> None:
        for line in self._lines:
            self._guard(line, self._open)
        self._write([])

    def _open(self, line: _Line) -> None:
        name = redact(str(line.destination))
        own = _identities(self._about.folder)
        identity = own.get(name) or (_identities(self._earlier).get(name) if self._earlier else None)
        sink = self._make(line.destination, self._about, identity)
        if own.get(name) != sink.identity:
            storage.write_json(storage.join(self._about.folder, IDENTITIES), {**own, name: sink.identity})
        line.sink, line.pending = sink, [*self._history, *line.pending]
        self._telemetry.note(
            f"tracking: {name}, {'run' if line.destination.kind != 'tensorboard' else 'files in'} {sink.identity}"
        )

    def _write(self, points: list[Point]) -> None:
        for line in self._lines:
            if line.off:
                line.lost += len(points)
                continue
            line.pending += points
            if len(line.pending) > MOST_KEPT:
                line.lost += len(line.pending) - MOST_KEPT
                del line.pending[:-MOST_KEPT]
            if line.sink is None:
                self._guard(line, self._open)
            if line.sink is not None and line.pending:
                self._guard(line, self._send)

    def _send(self, line: _Line) -> None:
        assert line.sink is not None
        line.pending = [point for point in line.pending if not line.sink.has(point)]
        if line.pending:
            line.sink.write(line.pending)
        line.pending = []

    def _flush(self, done: threading.Event | None) -> None:
        self._write([])
        for line in self._lines:
            if line.sink is not None and not line.off:
                self._guard(line, lambda line: line.sink.flush() if line.sink else None)
        if done is not None:
            done.set()

    def _close(self, finished: bool) -> None:
        self._write([])
        for line in self._lines:
            if line.sink is not None and not line.off:
                self._guard(line, lambda line: line.sink.close(finished, self._summary) if line.sink else None)

    def _guard(self, line: _Line, act: Callable[[_Line], Any]) -> None:
        try:
            act(line)
            line.failures = 0
        except Exception as error:  # whatever a tracker's library raises: its trouble is no reason to stop training
            line.failures += 1
            self._telemetry.count("train_tracking_failures")
            if line.failures == 1 or line.off:
                first = redact(str(error)).strip().splitlines() or [type(error).__name__]
                verb = f"is off after {PATIENCE} failures" if line.off else "failed, and is tried again"
                self._telemetry.note(f"tracking: {line.destination.kind} {verb}: {first[0][:300]}")


def _identities(folder: str) -> dict[str, str]:
    """What runs were called by the processes before this one; a file nobody can read is as good as none."""
    try:
        found = redact_all(storage.read_json(storage.join(folder, IDENTITIES)))
    except (StorageError, Malformed):
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}
