"""Batch jobs by hand of nobody, against a real HTTP server with the three providers' forms."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llava.errors import DataError
from llava.expansion.asking.batch_run import BatchLimits, cancel_all
from llava.expansion.asking.dispatch import Outcome
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.limits import Limits
from llava.expansion.asking.teaching import TeacherSettings, ask_in_batches
from llava.expansion.job import Job
from llava.expansion.teachers.batch_interfaces import open_batches
from tests.expansion.small_job import captions, job

GOOD = "Question:\nWhat is it?\n===\nAnswer:\na thing number one"
FORMS = ("openai", "anthropic", "gemini")


class Provider(ThreadingHTTPServer):
    """Answers a job at the second look; `lose` creations are done but not answered; `fail_first` requests fail once."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.lose = 0
        self.fail_first: set[int] = set()
        self.failed: set[str] = set()
        self.frozen = False

    def add(self, name: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        number = f"job-{len(self.jobs)}"
        self.jobs[number] = {"id": number, "name": name, "lines": lines, "looks": 0, "cancelled": False}
        self.asked += [line.get("custom_id") or line["key"] for line in lines]
        return self.jobs[number]

    def looked(self, number: str) -> bool:
        one = self.jobs[number]
        one["looks"] += 1
        return one["cancelled"] or (one["looks"] > 1 and not self.frozen)

    def answers(self, number: str) -> bytes:
        return b"".join(json.dumps(self.answer(k, line)).encode() + b"\n" for k, line in
                        enumerate(self.jobs[number]["lines"]))  # fmt: skip

    def answer(self, k: int, line: dict[str, Any]) -> dict[str, Any]:
        name = line.get("custom_id") or line["key"]
        bad = k in self.fail_first and name not in self.failed
        self.failed |= {name} if bad else set()
        if "key" in line:
            said = {"candidates": [{"content": {"parts": [{"text": GOOD}]}, "finishReason": "STOP"}],
                    "usageMetadata": {"promptTokenCount": 90, "candidatesTokenCount": 5}}  # fmt: skip
            return {"key": name, "error": {"code": 14, "message": "x"}} if bad else {"key": name, "response": said}
        if "params" in line:
            message = {"content": [{"type": "text", "text": GOOD}], "stop_reason": "end_turn",
                       "usage": {"input_tokens": 90, "output_tokens": 5}}  # fmt: skip
            result = {"type": "expired"} if bad else {"type": "succeeded", "message": message}
            return {"custom_id": name, "result": result}
        choice = {"message": {"role": "assistant", "content": GOOD}, "finish_reason": "stop"}
        body = {"choices": [choice], "usage": {"prompt_tokens": 90, "completion_tokens": 5}}
        if bad:
            return {"custom_id": name, "response": None, "error": {"code": "batch_expired"}}
        return {"custom_id": name, "response": {"status_code": 200, "body": body}}


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def log_message(self, *args: Any) -> None:
        pass

    def say(self, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(200)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def created(self, body: dict[str, Any]) -> None:
        if self.server.lose:
            self.server.lose -= 1
            self.connection.close()
            return
        self.say(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server, path = self.server, self.path
        if path.endswith(("/cancel", ":cancel")):
            server.jobs[re.findall(r"job-\d+", path)[0]]["cancelled"] = True
            return self.say({})
        if path == "/files":
            name = f"file-{len(server.files)}"
            server.files[name] = body.split(b"filename=")[1].split(b"\r\n\r\n", 1)[1].split(b"\r\n--")[0]
            return self.say({"id": name})
        if path == "/batches":
            asked = json.loads(body)
            lines = [json.loads(line) for line in server.files[asked["input_file_id"]].splitlines()]
            return self.created({"id": server.add(asked["metadata"]["llava_key"], lines)["id"]})
        if path == "/v1/messages/batches":
            return self.created({"id": server.add("", json.loads(body)["requests"])["id"]})
        if path == "/upload/v1beta/files":
            host = self.headers["Host"]
            return self.say({}, {"X-Goog-Upload-URL": f"http://{host}/up/{len(server.files)}"})
        if path.startswith("/up/"):
            name = f"files/{path[4:]}"
            server.files[name] = body
            return self.say({"file": {"name": name}})
        asked = json.loads(body)["batch"]
        lines = [json.loads(line) for line in server.files[asked["input_config"]["file_name"]].splitlines()]
        return self.created({"name": "batches/" + server.add(asked["display_name"], lines)["id"]})

    def do_GET(self) -> None:
        server, path = self.server, self.path
        found = re.findall(r"job-\d+", path)
        if found and ("/content" in path or "/results" in path or ":download" in path):
            return self.say(server.answers(found[0]))
        if path.startswith("/v1/messages"):
            if found:
                return self.say({"processing_status": "ended" if server.looked(found[0]) else "in_progress"})
            data = [{"id": one["id"], "created_at": "2099-01-01T00:00:00Z",
                     "request_counts": {"processing": len(one["lines"])}} for one in server.jobs.values()]  # fmt: skip
            return self.say({"data": data, "has_more": False})
        if path.startswith("/v1beta"):
            if found:
                done = server.looked(found[0])
                state = "BATCH_STATE_SUCCEEDED" if done else "BATCH_STATE_RUNNING"
                return self.say({"metadata": {"state": state}, "response": {"responsesFile": f"files/{found[0]}"}})
            ops = [{"name": f"batches/{n}", "metadata": {"displayName": one["name"]}} for n, one in server.jobs.items()]
            return self.say({"operations": ops})
        if found:
            done = server.looked(found[0])
            return self.say({"status": "completed" if done else "in_progress",
                             "output_file_id": f"out-{found[0]}" if done else None})  # fmt: skip
        data = [{"id": n, "metadata": {"llava_key": one["name"]}} for n, one in server.jobs.items()]
        return self.say({"data": data, "has_more": False})


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, "sk-test-0123456789")
    server = Provider()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def endpoint(server: Provider) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def ask(work: Job, server: Provider, form: Any, ledger: Ledger, prices: Path, max_cost: float = 0.0) -> Outcome:
    prices.write_text("models: {teacher: {input: 1, output: 1}}\n")
    settings = TeacherSettings(
        "openai", endpoint(server), "teacher", prices=str(prices), max_cost=max_cost, timeout=5.0, mode="batch",
        limits=Limits(retries=2, first_pause=0.01, longest_pause=0.02), batch_form=form,
        batch=BatchLimits(requests=4, poll_s=0.01),
    )  # fmt: skip
    return ask_in_batches(
        work.requests, settings, ledger, unusable=lambda kind, reply: "" if reply.text == GOOD else "form: other",
        note=lambda text: None, progress=lambda outcome: None,
    )  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_all_is_answered_what_failed_is_sent_again_and_nothing_else_twice(
    provider: Provider, tmp_path: Path, form: str
) -> None:
    work = job(captions(tmp_path, 10), kinds="conversation")
    provider.fail_first, provider.lose = {1}, 1
    ledger = Ledger(str(tmp_path / "ledger"))
    outcome = ask(work, provider, form, ledger, tmp_path / "p.yaml")
    ids = [request.id for request in work.requests()]
    assert not outcome.stopped and all(one in ledger for one in ids)
    assert max(len(one["lines"]) for one in provider.jobs.values()) == 4
    assert set(provider.asked) == set(ids)
    assert len(provider.asked) == len(ids) + len(provider.failed) and provider.failed
    assert ledger.cost == pytest.approx(len(ids) * 95 * 0.5 / 1e6)
    ledger.close()


@pytest.mark.parametrize("form", FORMS)
def test_a_killed_run_finds_its_jobs_again(provider: Provider, tmp_path: Path, form: str) -> None:
    work = job(captions(tmp_path, 6), kinds="conversation")
    provider.lose = 99  # the first run hears of no creation, and dies of it
    ledger = Ledger(str(tmp_path / "ledger"))
    look = Handler.do_GET
    Handler.do_GET = lambda self: self.connection.close()  # type: ignore[method-assign]
    try:
        with pytest.raises(DataError):
            ask(work, provider, form, ledger, tmp_path / "p.yaml")
    finally:
        Handler.do_GET = look  # type: ignore[method-assign]
    assert ledger.possibly_billed > 0
    ledger.close()
    provider.lose = 0
    again = Ledger(str(tmp_path / "ledger"))
    ask(work, provider, form, again, tmp_path / "p.yaml")
    assert sorted(provider.asked) == sorted(request.id for request in work.requests())
    assert all(request.id in again for request in work.requests())
    again.close()


def test_the_budget_is_kept_before_submission(provider: Provider, tmp_path: Path) -> None:
    work = job(captions(tmp_path, 6), kinds="conversation")
    ledger = Ledger(str(tmp_path / "ledger"))
    outcome = ask(work, provider, "openai", ledger, tmp_path / "p.yaml", max_cost=1e-6)
    assert outcome.budget and not provider.jobs
    ledger.close()


def test_cancelled_jobs_are_cancelled_at_the_provider(provider: Provider, tmp_path: Path) -> None:
    from llava.expansion.asking.entries import BatchJob

    provider.add("k", [])
    ledger = Ledger(str(tmp_path / "ledger"))
    ledger.append([BatchJob("k", 1, "openai", "submitted", job="job-0", ids=("a",), hold=1.0)])
    assert cancel_all(open_batches("openai", endpoint(provider), 5.0), ledger) == 1
    assert provider.jobs["job-0"]["cancelled"]
    ledger.close()
