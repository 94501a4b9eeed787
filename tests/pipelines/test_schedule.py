"""Schedules: cron as Kubeflow reads it, what is sent, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import pipeline
from llava.errors import SettingsError, UserError
from llava.pipelines import cron
from llava.pipelines.commands import make_app
from tests.pipelines.kfp_server import KfpServer, kfp_server

DATA = ["-p", "expand_annotations_uri=s3://b/a", "-p", "evaluate_questions_uri=s3://b/q.jsonl", "-p", "recipe=tiny"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    monkeypatch.chdir(tmp_path)
    for name in ("KF_PIPELINES_TOKEN", "KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with kfp_server() as running:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", running.url)
        yield running


def call(*arguments: str) -> None:
    make_app(pipeline.build)(["schedule", *arguments], standalone_mode=False)


@pytest.mark.slow
def test_a_schedule_is_sent_listed_paused_and_resumed(server: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    call("create", "--name", "weekly", "--cron", "30 3 * * 1", "--end", "2099-01-01", "--at-once", "2", *DATA)
    (body,) = server.of("POST", "/recurringruns")
    # Kubeflow's six fields begin with seconds.
    assert body["trigger"]["cron_schedule"] == {"cron": "0 30 3 * * 1", "end_time": "2099-01-01T00:00:00Z"}
    assert (body["no_catchup"] is True and body["max_concurrency"] == "2") or body["max_concurrency"] == 2
    assert body["mode"] == "ENABLE" and body["runtime_config"]["parameters"]["recipe"] == "tiny"
    assert body["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "llava-full"
    said = capsys.readouterr().out
    assert "schedule schedule-1" in said and "next: Mon " in said
    call("pause", "schedule-1")
    call("list")
    assert "schedule-1  weekly  DISABLED  0 30 3 * * 1  skips missed runs" in capsys.readouterr().out
    call("resume", "schedule-1")
    assert server.schedules["schedule-1"]["status"] == "ENABLED"
    call("delete", "schedule-1")
    assert not server.schedules
    with pytest.raises(UserError, match="schedule schedule-1: there is none"):
        call("pause", "schedule-1")


def test_catch_up_says_how_many_runs_start_at_once(server: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    start = (datetime.now(UTC) - timedelta(days=3, hours=1)).isoformat()
    call("create", "--name", "d", "--cron", "0 0 * * *", "--start", start, "--catch-up", "--paused", "--package",
         "only-export", "-p", "model_uri=s3://b/m")  # fmt: skip
    (body,) = server.of("POST", "/recurringruns")
    assert not body.get("no_catchup") and body["mode"] == "DISABLE"
    said = capsys.readouterr()
    assert "missed runs since" in said.err and said.err.split()[1] in ("3", "4") and "paused: " in said.out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--cron", "0 0 30 2 *"], "never comes"),
        (["--cron", "61 * * * *"], "never comes: Bad minute"),
        (["--cron", "0 3 * *"], "4 fields; expected five"),
        (["--cron", "0 0 3 * * 1"], "6 fields; expected five"),
        (["--cron", "0 3 * * 7"], "Kubeflow counts Sunday as 0"),
        (["--cron", "0 3 L * *"], "L"),
        (["--cron", "0 3 * * 1#2"], "no L, W, #"),
        (["--cron", "0 3 * * *", "--end", "2020-01-01"], "not after the present"),
        (["--cron", "0 0 29 2 *", "--start", "2097-01-01", "--end", "2099-01-01"], "does not come before --end"),
        (["--cron", "0 3 * * *", "--start", "tomorrow"], "expected a time such as"),
        (["--cron", "* * * * *", "--start", "2020-01-01", "--catch-up"], "more than 50 runs at once"),
    ],
)
def test_impossible_schedules_are_refused(given: list[str], said: str, server: KfpServer) -> None:
    with pytest.raises(SettingsError, match=said):
        call("create", "--name", "n", *given, *DATA)
    assert not server.requests


@pytest.mark.parametrize("text", ["0 3 * * 1", "*/15 8-18 * * MON-FRI", "0 0 1,15 * *", "0 0 29 2 *", "5 4 * JAN 0"])
def test_plain_expressions_pass(text: str) -> None:
    assert cron.kubeflow_cron(text) == f"0 {text}"
