"""Runs that have ended are told of once, whatever the webhook does; a real HTTP server stands for the webhook."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llava import storage
from llava.cli import main
from llava.executor import RECORD_NAME, OutputRecord
from llava.retrying import Pauses
from tests.pipelines.kfp_server import KfpServer, kfp_server


class Webhook:
    """What was posted, and the statuses to answer with."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        self.url = ""


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    state = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = state.statuses.pop(0) if state.statuses else 200
            if status == 200:
                state.posted.append(body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"ok" if status == 200 else b"no_service")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/services/T0/SECRET"
    monkeypatch.setenv("LLAVA_WEBHOOK_URL", state.url)
    monkeypatch.setattr("llava.cli.announcing._PAUSES", Pauses(0.01))
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    monkeypatch.delenv("KF_PIPELINES_TOKEN", raising=False)
    with kfp_server() as running:
        yield running


def add_run(server: KfpServer, run: str, state: str, root: str, *, hours_ago: float = 1) -> None:
    ended = datetime.now(UTC) - timedelta(hours=hours_ago)
    running = state == "RUNNING"
    server.runs[run] = {
        "run_id": run, "display_name": f"LLaVA <7B> {run}", "state": state,
        "created_at": f"{ended - timedelta(seconds=5400):%Y-%m-%dT%H:%M:%SZ}",
        # An unfinished run has the zero of Unix (api_converter.go: time.Unix(0, 0)).
        "finished_at": "1970-01-01T00:00:00Z" if running else f"{ended:%Y-%m-%dT%H:%M:%SZ}",
        "pipeline_spec": {"pipeline_spec": {"pipelineInfo": {"name": "llava-full"}}},
        "runtime_config": {"pipeline_root": root},
        "run_details": {"task_details": [{"display_name": "finetune", "state": state}]},
    }  # fmt: skip
    folder = f"{root}/llava-full/{run}/evaluate/5a17"
    record = OutputRecord(
        stage="evaluate", settings={}, inputs={}, outputs={"report": f"{folder}/report"}, seconds=75,
        metrics={"accuracy": 0.8125, "other": 1.0}, finished_unix=1,
    )  # fmt: skip
    storage.write_json(f"{folder}/{RECORD_NAME}", record.model_dump())


def announce(server: KfpServer, root: Path, *arguments: str) -> int:
    try:
        main(
            [
                "announce",
                "--api",
                server.url,
                "--root",
                str(root),
                "--ui",
                "https://kfp.example.com/pipeline",
                *arguments,
            ]
        )
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_each_ended_run_is_told_of_once(server: KfpServer, webhook: Webhook, tmp_path: Path) -> None:
    add_run(server, "run-a", "SUCCEEDED", str(tmp_path))
    add_run(server, "run-b", "FAILED", str(tmp_path))
    add_run(server, "run-c", "RUNNING", str(tmp_path))
    add_run(server, "run-d", "SUCCEEDED", str(tmp_path), hours_ago=48)
    assert announce(server, tmp_path) == 0
    assert announce(server, tmp_path) == 0
    texts = sorted((body["text"] for body in webhook.posted), key=lambda text: "run-b" in text)
    assert len(texts) == 2
    # Slack's markup: <url|text>, with & < > escaped in the text.
    title = "<https://kfp.example.com/pipeline/#/runs/details/run-a|LLaVA &lt;7B&gt; run-a>"
    assert texts[0].splitlines()[0] == f":white_check_mark: {title}: SUCCEEDED after 1 h 30 min"
    assert "• evaluate: 1 min 15 s, accuracy 0.8125" in texts[0] and "other" not in texts[0]
    assert "evaluate/5a17/report" in texts[0]
    assert texts[1].startswith(":x: ") and "failed: finetune" in texts[1]
    server.runs["run-c"] |= {"state": "CANCELED", "finished_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    announce(server, tmp_path)
    assert len(webhook.posted) == 3


def test_a_webhook_that_fails_changes_no_run_and_is_tried_again(
    server: KfpServer, webhook: Webhook, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(server, "run-a", "SUCCEEDED", str(tmp_path))
    before = json.dumps(server.runs)
    webhook.statuses = [500, 502, 503]
    assert announce(server, tmp_path) == 2
    said = capsys.readouterr().err
    assert "127.0.0.1 answered 503: no_service" in said and "SECRET" not in said, "the URL is a password"
    assert json.dumps(server.runs) == before and {verb for verb, _, _ in server.requests} == {"GET"}
    webhook.statuses = [404]
    assert announce(server, tmp_path) == 2 and not webhook.statuses, "a refusal is not repeated"
    assert announce(server, tmp_path) == 0 and len(webhook.posted) == 1


def test_bad_settings(
    server: KfpServer,
    webhook: Webhook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert announce(server, tmp_path, "--api", "http://127.0.0.1:9") == 2
    assert "no answer" in capsys.readouterr().err
    assert announce(server, tmp_path, "--only", "(weekly") == 2
    assert "--only: found '(weekly'; expected a regular expression" in capsys.readouterr().err
    server.refuse = (403, "no")
    assert announce(server, tmp_path) == 2
    monkeypatch.setenv("LLAVA_WEBHOOK_URL", "hooks")
    assert announce(server, tmp_path) == 2 and "expected the URL of a webhook" in capsys.readouterr().err
