"""A run is never held up or ended by a tracker, and a tracker gets every point once."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from llava import storage
from llava.telemetry import Telemetry
from llava.tracking import tracker
from llava.tracking.destinations import Destination
from llava.tracking.sink import About, Point, Sink
from llava.tracking.tracker import IDENTITIES, Tracker


class Server:
    """Keeps what it is given, as a tracker's server would; fails as often as it is told to."""

    def __init__(self) -> None:
        self.runs: dict[str, list[Point]] = {}
        self.failures = 0
        self.closed: list[tuple[bool, dict[str, float]]] = []
        self.busy = threading.Event()
        self.busy.set()


class ServerSink:
    def __init__(self, server: Server, identity: str | None) -> None:
        self.server = server
        self.identity = identity or f"run-{len(server.runs)}"
        self.points = server.runs.setdefault(self.identity, [])

    def has(self, point: Point) -> bool:
        return any(kept.step == point.step and kept.values.keys() == point.values.keys() for kept in self.points)

    def write(self, points: Sequence[Point]) -> None:
        self.server.busy.wait()
        for point in points:
            if self.server.failures:
                self.server.failures -= 1
                raise ConnectionError("https://user:secret@server refused")  # pragma: allowlist secret
            self.points.append(point)

    def flush(self) -> None:
        pass

    def close(self, finished: bool, summary: dict[str, float]) -> None:
        self.server.closed.append((finished, summary))


def points(first: int, last: int) -> list[Point]:
    return [Point(step, 1000.0 + step, {"train/loss": 1.0 / step}) for step in range(first, last + 1)]


def a_tracker(server: Server, folder: Path, telemetry: Telemetry, *, done: int = 0, earlier: str = "") -> Tracker:
    def make(destination: Destination, about: About, identity: str | None) -> Sink:
        return ServerSink(server, identity)

    about = About("demo-pretrain", {"recipe": "tiny"}, done, str(folder))
    return Tracker(
        [Destination("mlflow", "http://user:secret@server")],  # pragma: allowlist secret
        about,
        points(1, done),
        telemetry,
        earlier=earlier,
        make=make,
    )


def steps(server: Server, run: str = "run-0") -> list[int]:
    return [point.step for point in server.runs[run]]


def test_a_run_and_its_resumption_are_one_run_without_gap_or_double(tmp_path: Path) -> None:
    server = Server()
    with Telemetry("pretrain", "demo", stream=io.StringIO()) as telemetry:
        killed = a_tracker(server, tmp_path, telemetry)
        killed.log(points(1, 7))
        killed.flush()  # a checkpoint at 5; then kill -9 at 7
        with a_tracker(server, tmp_path, telemetry, done=5) as resumed:
            resumed.log(points(6, 9))
            resumed.summary({"seconds": 2.0})
    assert steps(server) == list(range(1, 10))
    assert server.closed == [(True, {"seconds": 2.0})]
    assert "secret" not in (tmp_path / IDENTITIES).read_text()


def test_what_a_tracker_lacks_comes_from_the_history(tmp_path: Path) -> None:
    server = Server()
    with (
        Telemetry("pretrain", "demo", stream=io.StringIO()) as telemetry,
        a_tracker(server, tmp_path, telemetry, done=5) as late,
    ):
        late.log(points(6, 6))
    assert steps(server) == [1, 2, 3, 4, 5, 6]


def test_the_run_that_is_continued_elsewhere_is_continued(tmp_path: Path) -> None:
    server = Server()
    with Telemetry("pretrain", "demo", stream=io.StringIO()) as telemetry:
        with a_tracker(server, tmp_path / "first", telemetry) as first:
            first.log(points(1, 3))
        with a_tracker(server, tmp_path / "second", telemetry, done=3, earlier=str(tmp_path / "first")) as second:
            second.log(points(4, 4))
    assert list(server.runs) == ["run-0"]
    assert steps(server) == [1, 2, 3, 4]


def test_failures_are_counted_said_without_secrets_and_made_up_for(tmp_path: Path) -> None:
    server, log = Server(), io.StringIO()
    server.failures = tracker.PATIENCE - 1
    with Telemetry("pretrain", "demo", stream=log) as telemetry:
        with a_tracker(server, tmp_path, telemetry) as patient:
            for step in range(1, 9):
                patient.log(points(step, step))
        count = telemetry.registry.get_sample_value(
            "llava_train_tracking_failures_total", {"stage": "pretrain", "run": "demo"}
        )
    assert steps(server) == list(range(1, 9))
    assert count == tracker.PATIENCE - 1
    assert "tracking: mlflow failed, and is tried again" in log.getvalue()
    assert "secret" not in log.getvalue()


def test_one_that_fails_for_good_is_left_alone(tmp_path: Path) -> None:
    server, log = Server(), io.StringIO()
    server.failures = 10**6
    with Telemetry("pretrain", "demo", stream=log) as telemetry, a_tracker(server, tmp_path, telemetry) as hopeless:
        for step in range(1, 21):
            hopeless.log(points(step, step))
    assert server.failures == 10**6 - tracker.PATIENCE
    assert f"is off after {tracker.PATIENCE} failures" in log.getvalue()
    assert "lacks 20 points" in log.getvalue()


def test_training_waits_for_a_tracker_that_hangs_no_longer_than_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker, "FLUSH_WAIT_S", 0.1)
    monkeypatch.setattr(tracker, "CLOSE_WAIT_S", 0.1)
    server = Server()
    server.busy.clear()
    with Telemetry("pretrain", "demo", stream=io.StringIO()) as telemetry, a_tracker(server, tmp_path, telemetry) as t:
        before = time.monotonic()
        t.log(points(1, 3))
        t.flush()
        assert time.monotonic() - before < 5
    server.busy.set()


def test_a_run_that_fails_is_said_to_have_failed(tmp_path: Path) -> None:
    server = Server()
    with Telemetry("pretrain", "demo", stream=io.StringIO()) as telemetry:
        failing = a_tracker(server, tmp_path, telemetry)
        failing.log(points(1, 2))
        failing.__exit__(ValueError, ValueError("diverged"), None)
    assert steps(server) == [1, 2]
    assert server.closed == [(False, {})]


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff", b'{"mlflow": null}'])
def test_a_broken_note_of_runs_begins_a_new_one(content: bytes, tmp_path: Path) -> None:
    (tmp_path / IDENTITIES).write_bytes(content)
    server = Server()
    with Telemetry("pretrain", "demo", stream=io.StringIO()) as telemetry, a_tracker(server, tmp_path, telemetry) as t:
        t.log(points(1, 1))
    assert steps(server) == [1]
    assert storage.read_json(str(tmp_path / IDENTITIES))["mlflow=http://[redacted]@server"] == "run-0"
