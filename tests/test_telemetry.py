"""Progress lines, Prometheus series scraped over HTTP, the final push and the run log."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llava import metrics_server
from llava.errors import SettingsError
from llava.telemetry import Telemetry
from tests.s3_server import free_port


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(time, "monotonic", fake)
    return fake


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLAVA_METRICS_PORT", "LLAVA_PUSHGATEWAY", "LLAVA_RUN_LOG"):
        monkeypatch.delenv(name, raising=False)


def scrape(port: int) -> dict[str, tuple[float, dict[str, str]]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        text = reply.read().decode()
    return {
        sample.name: (sample.value, sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_series_are_scraped_with_prefix_units_and_labels() -> None:
    with Telemetry("pretrain", "run-7", port=0, stream=io.StringIO()) as run:
        assert run.port
        run.gauge("loss", 1.5)
        run.gauge("loss", 0.5)
        run.count("rows", 3)
        run.count("rows", 4)
        run.observe("step", 0.2)
        run.observe("step", 0.4)
        run.progress("training", 3, 10)
        series = scrape(run.port)
    assert series["llava_loss"] == (0.5, {"stage": "pretrain", "run": "run-7"})
    assert series["llava_rows_total"][0] == 7
    assert series["llava_step_seconds_count"][0] == 2
    assert series["llava_step_seconds_sum"][0] == pytest.approx(0.6)
    assert series["llava_progress_done"][0] == 3
    assert series["llava_progress_total"][0] == 10
    assert series["llava_last_progress_timestamp_seconds"][0] > 1.6e9
    assert all(not name.startswith("python_") for name in series)  # our own registry


def test_the_port_comes_from_the_environment_and_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("LLAVA_METRICS_PORT", str(port))
    for _ in range(2):  # the second one finds the port free again
        with Telemetry("export", "r", stream=io.StringIO()) as run:
            run.gauge("parity", 1)
            assert scrape(port)["llava_parity"][0] == 1


def test_a_port_in_use_is_noted_and_the_run_goes_on() -> None:
    out = io.StringIO()
    with (
        Telemetry("export", "first", port=0, stream=io.StringIO()) as first,
        Telemetry("export", "second", port=first.port, stream=out) as second,
    ):
        second.gauge("parity", 1)
        assert second.port is None
    assert f"no metrics on 127.0.0.1:{first.port}" in out.getvalue()


@pytest.mark.parametrize("value", ["http", "-1", "70000"])
def test_a_port_that_is_none_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LLAVA_METRICS_PORT", value)
    with pytest.raises(SettingsError, match=f"LLAVA_METRICS_PORT: found '{value}'"):
        Telemetry("export", "r")


def test_other_ranks_say_nothing(tmp_path: Path) -> None:
    out = io.StringIO()
    with Telemetry("pretrain", "r", rank=1, port=0, stream=out, log=tmp_path / "log.jsonl") as run:
        run.gauge("loss", 1)
        run.progress("training", 1, 1)
        run.note("hello")
        assert run.port is None
    assert out.getvalue() == ""
    assert not (tmp_path / "log.jsonl").exists()


def test_a_name_has_one_kind_and_one_spelling() -> None:
    run = Telemetry("pretrain", "r", stream=io.StringIO())
    run.gauge("loss", 1)
    with pytest.raises(ValueError, match="llava_loss is a Gauge"):
        run.count("loss")
    with pytest.raises(ValueError, match="lower-case"):
        run.gauge("Loss!", 1)


def test_lines_in_a_log_are_few_and_complete(clock: Clock) -> None:
    out = io.StringIO()
    run = Telemetry("finetune", "r", stream=out)
    for step in range(101):
        run.progress("training", step, 100, loss=2 / (step + 1), phase="warm")
        clock.now += 0.125
    lines = out.getvalue().splitlines()
    assert "\r" not in out.getvalue()
    assert 5 <= len(lines) <= 7  # twelve and a half seconds at one line every three, the first and the last
    assert lines[0].split()[:3] == ["finetune", "training", "0/100"]
    assert lines[1].split()[2:] == ["24/100", "24%", "8/s", "left", "0:10", "loss", "0.08", "phase", "warm"]
    assert "100/100" in lines[-1] and "took 0:12" in lines[-1]


def test_the_rate_of_a_resumed_run_is_its_own(clock: Clock) -> None:
    out = io.StringIO()
    run = Telemetry("finetune", "r", stream=out)
    run.progress("training", 90, 110)
    clock.now += 5
    run.progress("training", 100, 110)
    assert "2/s" in out.getvalue().splitlines()[-1]
    assert "left 0:05" in out.getvalue().splitlines()[-1]


def test_a_terminal_redraws_one_line_and_notes_stand_on_their_own(clock: Clock) -> None:
    out = Terminal()
    run = Telemetry("evaluate", "r", stream=out)
    run.progress("answers", 1, 4)
    clock.now += 1
    run.progress("answers", 2, 4)
    run.note("half")
    clock.now += 1
    run.progress("answers", 4, 4)
    run.progress("answers", 4, 4)  # said once
    lines = out.getvalue().split("\n")
    assert lines[0].count("\r") == 2 and lines[0].rstrip().endswith("half")
    assert lines[1].count("4/4") == 1 and lines[2:] == [""]


def test_an_unknown_total_has_no_share_and_no_end(clock: Clock) -> None:
    out = io.StringIO()
    run = Telemetry("expand", "r", stream=out)
    run.progress("rows", 1, None)
    clock.now += 4
    run.progress("rows", 9, None, cost=0.25)
    assert out.getvalue().splitlines()[-1].split() == ["expand", "rows", "9", "2/s", "cost", "0.25"]


def test_the_run_log_has_one_json_object_a_line(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "log.jsonl"
    with Telemetry("pretrain", "r1", stream=io.StringIO(), log=log) as run:
        run.note("started")
        run.record("step", step=1, loss=float("nan"))
    with Telemetry("pretrain", "r1", stream=io.StringIO(), log=log) as run:
        run.record("step", step=2, loss=0.5)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["event"] for row in rows] == ["note", "step", "step"]
    assert rows[1]["loss"] == "nan"  # NaN is no JSON
    assert rows[2] == {**rows[2], "stage": "pretrain", "run": "r1", "step": 2, "loss": 0.5}


def test_counters_are_exact_from_many_threads() -> None:
    run = Telemetry("pretrain", "r", stream=io.StringIO())
    threads = [threading.Thread(target=lambda: [run.count("rows") for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.registry.get_sample_value("llava_rows_total", {"stage": "pretrain", "run": "r"}) == 4000


@contextmanager
def gateway(status: int) -> Iterator[tuple[int, list[tuple[str, str, bytes]]]]:
    """An HTTP server that takes what a Pushgateway takes and answers `status`."""
    received: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            received.append((self.command, self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_final_snapshot_is_pushed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with gateway(200) as (port, received):
        monkeypatch.setenv("LLAVA_PUSHGATEWAY", f"127.0.0.1:{port}")
        run = Telemetry("export", "run-9", stream=io.StringIO())
        run.gauge("parity", 0.25)
        run.close()
        run.close()
    [(method, path, body)] = received
    assert method == "PUT" and path == "/metrics/job/llava-export/run/run-9"
    assert b'llava_parity{run="run-9",stage="export"} 0.25' in body


def test_a_failing_gateway_is_noted_and_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with gateway(500) as (port, received):
        monkeypatch.setenv("LLAVA_PUSHGATEWAY", f"127.0.0.1:{port}")
        out = io.StringIO()
        Telemetry("export", "r", stream=out).close()
    assert received and "no final metrics" in out.getvalue()


def test_metrics_are_served_where_told_to_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAVA_METRICS_HOST", raising=False)
    with Telemetry("expand", "run", port=0, stream=io.StringIO()) as telemetry:
        assert telemetry._server is not None and telemetry._server.server_address[0] == "127.0.0.1"
        address = ("127.0.0.1", telemetry.port or 0)
        idle = [socket.create_connection(address, timeout=5) for _ in range(metrics_server.MOST_CONNECTIONS)]
        time.sleep(0.3)  # accepted, each by a thread of its own
        one_more = socket.create_connection(address, timeout=5)
        assert one_more.recv(1) == b"", "closed at once"
        for connection in (*idle, one_more):
            connection.close()
    monkeypatch.setenv("LLAVA_METRICS_HOST", "127.0.0.2")
    with Telemetry("expand", "run", port=0, stream=io.StringIO()) as telemetry:
        assert telemetry._server is not None and telemetry._server.server_address[0] == "127.0.0.2"
