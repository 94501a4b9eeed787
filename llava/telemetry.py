"""What a running stage tells the world: a progress line, Prometheus series, and a run log.

Only rank 0 speaks; on every other rank the same calls cost nothing and do nothing. Telemetry never stops a run: a
port in use or a Pushgateway that does not answer is noted on stderr, and the work continues.

Environment:
    LLAVA_METRICS_PORT: serve `/metrics` on this port (0: any free port, see `Telemetry.port`).
    LLAVA_METRICS_HOST: address to serve on; default this machine alone. Pods name their own.
    LLAVA_PUSHGATEWAY: push one final snapshot to this Pushgateway on `close`.
    LLAVA_RUN_LOG: append events to this file, one JSON object a line.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, push_to_gateway

from llava import metrics_server
from llava.errors import SettingsError
from llava.redaction import redact, visible
from llava.written_numbers import readable

LINE_EVERY_S = 3.0  # on a pipe or in a pod's log: few enough lines to read
REDRAW_EVERY_S = 0.1  # on a terminal, where one line is redrawn
RATE_WINDOW_S = 30.0  # the rate shown is that of the recent past, so that the time left follows a change of speed
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000)
_NAME = re.compile(r"^[a-z][a-z0-9_]*$")
_LABELS = ("stage", "run")


@dataclass
class _Track:
    """One thing being counted: recent (time, done) pairs, and when it was last shown."""

    recent: deque[tuple[float, float]] = field(default_factory=deque)
    started: float = 0.0
    shown: float = -math.inf
    finished: bool = False


class Telemetry:
    """Progress, metrics and run log of one stage.

    Series are named `llava_<name>` and carry the labels `stage` and `run`. All methods may be called from any thread.

    Args:
        stage: `expand`, `pretrain`, `finetune`, `evaluate`, `export`.
        run: what tells this run from others, short; usually the pipeline run's name.
        rank: only rank 0 prints, serves and pushes.
        port: port of `/metrics`; None: LLAVA_METRICS_PORT, and without that no server.
        stream: where progress lines go; default stderr.
        log: run log file; None: LLAVA_RUN_LOG, and without that no log.

    Raises:
        SettingsError: LLAVA_METRICS_PORT is not a port number.
    """

    def __init__(
        self,
        stage: str,
        run: str,
        *,
        rank: int = 0,
        port: int | None = None,
        stream: TextIO | None = None,
        log: str | Path | None = None,
    ) -> None:
        self.stage = stage
        self.run = run
        self.enabled = rank == 0
        self.registry = CollectorRegistry()
        self.port: int | None = None
        self._stream = stream if stream is not None else sys.stderr
        self._tty = self.enabled and bool(getattr(self._stream, "isatty", lambda: False)())
        self._lock = threading.RLock()
        self._metrics: dict[str, Gauge | Counter | Histogram] = {}
        self._tracks: dict[str, _Track] = {}
        self._line_open = 0  # columns of the line being redrawn on a terminal
        self._server: WSGIServer | None = None
        self._server_thread: threading.Thread | None = None
        self._log: TextIO | None = None
        self._closed = False
        if not self.enabled:
            return
        log = log if log is not None else os.environ.get("LLAVA_RUN_LOG") or None
        if log is not None:
            Path(log).parent.mkdir(parents=True, exist_ok=True)
            self._log = Path(log).open("a", encoding="utf-8")  # noqa: SIM115  (lives until close)
        port = port if port is not None else _port_from_environment()
        if port is not None:
            self._serve(port)

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.record("failed", error=type(error).__name__)
        self.close()

    # --- progress ---------------------------------------------------------------------------------------------------

    def progress(self, what: str, done: float, total: float | None, **shown: float | str | None) -> None:
        """Show how far `what` has come: `done` of `total` (None: unknown), with `shown` values behind it.

        The first call, the last one (`done >= total`) and otherwise one every few seconds become a line; on a terminal
        one line is redrawn. The rate and the time left are of the last half minute, and count from the first call's
        `done`, so that a resumed run shows its own speed.
        """
        if not self.enabled:
            return
        with self._lock:
            now = time.monotonic()
            track = self._tracks.get(what)
            if track is None or (track.finished and not _reached(done, total)):
                track = self._tracks[what] = _Track(started=now)
            track.recent.append((now, done))
            while len(track.recent) > 2 and track.recent[0][0] < now - RATE_WINDOW_S:
                track.recent.popleft()
            self.gauge("progress_done", done)
            self.gauge("progress_total", total if total is not None else 0)
            self.gauge("last_progress_timestamp_seconds", time.time())
            last = _reached(done, total)
            if last and track.finished:
                return
            if not last and now - track.shown < (REDRAW_EVERY_S if self._tty else LINE_EVERY_S):
                return
            track.shown, track.finished = now, last
            self._write(self._line(what, done, total, track, now, shown), redraw=self._tty and not last)
            self.record("progress", what=what, done=done, total=total, **shown)

    def note(self, text: str) -> None:
        """One line a person should read: where something was written, what was skipped, what to know."""
        if not self.enabled:
            return
        text = redact(text)
        with self._lock:
            self._write(f"{self.stage:9} {text}", redraw=False)
            self.record("note", text=text)

    # --- metrics ----------------------------------------------------------------------------------------------------

    def gauge(self, name: str, value: float) -> None:
        """Set `llava_<name>` to `value`."""
        if self.enabled:
            metric = self._metric(name, Gauge)
            assert isinstance(metric, Gauge)
            metric.labels(self.stage, self.run).set(value)

    def count(self, name: str, n: float = 1) -> None:
        """Add `n` to the counter `llava_<name>_total`."""
        if self.enabled:
            metric = self._metric(name.removesuffix("_total"), Counter)
            assert isinstance(metric, Counter)
            metric.labels(self.stage, self.run).inc(n)

    def observe(self, name: str, seconds: float) -> None:
        """Add one duration to the histogram `llava_<name>_seconds`."""
        if self.enabled:
            metric = self._metric(f"{name.removesuffix('_seconds')}_seconds", Histogram)
            assert isinstance(metric, Histogram)
            metric.labels(self.stage, self.run).observe(seconds)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Observe how long the block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.observe(name, time.perf_counter() - start)

    # --- run log ----------------------------------------------------------------------------------------------------

    def record(self, event: str, **fields: Any) -> None:
        """Append an event to the run log, if there is one. Values that are not finite are written as text."""
        with self._lock:
            if self._log is None:
                return
            row = {"time": round(time.time(), 3), "stage": self.stage, "run": self.run, "event": event}
            row.update({key: _plain(value) for key, value in fields.items()})
            self._log.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._log.flush()

    def close(self) -> None:
        """End the progress line, push the final snapshot, stop the server. Calling it again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._line_open:
                self._stream.write("\n")
                self._stream.flush()
                self._line_open = 0
        gateway = os.environ.get("LLAVA_PUSHGATEWAY")
        if self.enabled and gateway:
            try:
                push_to_gateway(
                    gateway,
                    job=f"llava-{self.stage}",
                    registry=self.registry,
                    grouping_key={"run": self.run},
                    timeout=10,
                )
            except Exception as error:  # whatever went wrong there, the run itself succeeded
                self.note(f"no final metrics at {gateway}: {error}")
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            if self._server_thread is not None:
                self._server_thread.join(timeout=5)
        if self._log is not None:
            self._log.close()
            self._log = None

    # --- inside -----------------------------------------------------------------------------------------------------

    def _serve(self, port: int) -> None:
        host = os.environ.get("LLAVA_METRICS_HOST", "").strip() or "127.0.0.1"
        try:
            self._server, self._server_thread = metrics_server.start(host, port, self.registry)
        except OSError as error:
            self.note(f"no metrics on {host}:{port}: {error.strerror or error}")
            return
        self.port = int(self._server.server_port)

    def _metric(self, name: str, kind: type[Gauge] | type[Counter] | type[Histogram]) -> Gauge | Counter | Histogram:
        with self._lock:
            metric = self._metrics.get(name)
            if metric is None:
                if not _NAME.match(name):
                    raise ValueError(f"metric name {name!r}: expected lower-case letters, digits and underscores")
                text = f"{name.replace('_', ' ')} of a llava stage"
                options: dict[str, Any] = {"buckets": _BUCKETS} if kind is Histogram else {}
                metric = self._metrics[name] = kind(f"llava_{name}", text, _LABELS, registry=self.registry, **options)
            elif type(metric) is not kind:
                raise ValueError(f"metric llava_{name} is a {type(metric).__name__}, and was used as a {kind.__name__}")
            return metric

    def _line(
        self, what: str, done: float, total: float | None, track: _Track, now: float, shown: dict[str, Any]
    ) -> str:
        parts = [f"{self.stage:9} {what} {readable(done)}" + (f"/{readable(total)}" if total is not None else "")]
        if total:
            parts.append(f"{100 * done / total:3.0f}%")
        first_time, first_done = track.recent[0]
        rate = (done - first_done) / (now - first_time) if now > first_time and done > first_done else None
        if rate:
            parts.append(f"{readable(rate)}/s" if rate >= 1 else f"{readable(1 / rate)} s each")
        if _reached(done, total):
            parts.append(f"took {_clock(now - track.started)}")
        elif rate and total is not None:
            parts.append(f"left {_clock((total - done) / rate)}")
        parts += [f"{key} {readable(value)}" for key, value in shown.items() if value is not None]
        return "  ".join(parts)

    def _write(self, line: str, *, redraw: bool) -> None:
        line = visible(line)
        pad = " " * max(0, self._line_open - len(line))
        start = "\r" if self._line_open else ""
        self._stream.write(f"{start}{line}{pad}" + ("" if redraw else "\n"))
        self._stream.flush()
        self._line_open = len(line) if redraw else 0


def _port_from_environment() -> int | None:
    text = os.environ.get("LLAVA_METRICS_PORT", "").strip()
    if not text:
        return None
    if not text.isdigit() or int(text) > 65535:
        raise SettingsError(f"LLAVA_METRICS_PORT: found {text!r}; expected a port number from 0 to 65535")
    return int(text)


def _reached(done: float, total: float | None) -> bool:
    return total is not None and done >= total


def _clock(seconds: float) -> str:
    seconds = max(0, round(seconds))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str, list, dict)):
        return value
    item = getattr(value, "item", None)  # a numpy or torch scalar
    return _plain(item()) if callable(item) else str(value)
