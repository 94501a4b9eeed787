"""A server with the batch interfaces of three providers, which misbehaves as it is told."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = "Question:\nWhat is it?\n===\nAnswer:\na thing number one"


class Provider(ThreadingHTTPServer):
    """Answers a job at the second look.

    Attributes:
        asked: ids in the order in which they came, again where they came again.
        lose: so many creations are done but not answered.
        fail_first: these requests of a job, by number, fail once.
        refuse: so many creations are answered with 429, and not done.
        too_many_tokens: so many jobs fail with the provider's word for a full queue.
        text: what every request is answered with.
        most_open: most jobs that were under way at once.
        event: called with `create`, `look` or `fetch` before it is answered.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.lose = 0
        self.fail_first: set[int] = set()
        self.failed: set[str] = set()
        self.frozen = False
        self.refuse = self.too_many_tokens = self.most_open = 0
        self.text = GOOD
        self.sizes: list[int] = []
        self.event: Callable[[str], None] = lambda what: None

    def add(self, name: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        number = f"job-{len(self.jobs)}"
        self.jobs[number] = {"id": number, "name": name, "lines": lines, "looks": 0, "cancelled": False}
        self.jobs[number]["failed"] = self.too_many_tokens > 0
        self.too_many_tokens -= self.too_many_tokens > 0
        if not self.jobs[number]["failed"]:
            self.asked += [line.get("custom_id") or line["key"] for line in lines]
        under_way = sum(not one["failed"] and one["looks"] < 2 and not one["cancelled"] for one in self.jobs.values())
        self.most_open = max(self.most_open, under_way)
        return self.jobs[number]

    def looked(self, number: str) -> bool:
        one = self.jobs[number]
        one["looks"] += 1
        return one["cancelled"] or (one["looks"] > 1 and not self.frozen)

    def answers(self, number: str) -> bytes:
        """A line for each request; of a cancelled job for the first half."""
        one = self.jobs[number]
        lines = one["lines"][: len(one["lines"]) // 2] if one["cancelled"] else one["lines"]
        return b"".join(json.dumps(self.answer(k, line)).encode() + b"\n" for k, line in enumerate(lines))

    def answer(self, k: int, line: dict[str, Any]) -> dict[str, Any]:
        name = line.get("custom_id") or line["key"]
        bad = k in self.fail_first and name not in self.failed
        self.failed |= {name} if bad else set()
        if "key" in line:
            said = {"candidates": [{"content": {"parts": [{"text": self.text}]}, "finishReason": "STOP"}],
                    "usageMetadata": {"promptTokenCount": 90, "candidatesTokenCount": 5}}  # fmt: skip
            return {"key": name, "error": {"code": 14, "message": "x"}} if bad else {"key": name, "response": said}
        if "params" in line:
            message = {"content": [{"type": "text", "text": self.text}], "stop_reason": "end_turn",
                       "usage": {"input_tokens": 90, "output_tokens": 5}}  # fmt: skip
            result = {"type": "expired"} if bad else {"type": "succeeded", "message": message}
            return {"custom_id": name, "result": result}
        choice = {"message": {"role": "assistant", "content": self.text}, "finish_reason": "stop"}
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

    def refused(self) -> bool:
        """Says 429 to a creation that is to be refused."""
        if not self.server.refuse:
            return False
        self.server.refuse -= 1
        data = json.dumps({"error": {"message": "too many batches", "code": "rate_limit_exceeded"}}).encode()
        self.send_response(429)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        return True

    def created(self, body: dict[str, Any]) -> None:
        self.server.event("create")
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
            server.sizes.append(len(server.files[name]))
            return self.say({"id": name})
        if path == "/batches":
            if self.refused():
                return None
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
            server.event("fetch")
            return self.say(server.answers(found[0]))
        if found:
            server.event("look")
        if path.startswith("/v1/messages"):
            if found:
                said = {"processing_status": "ended" if server.looked(found[0]) else "in_progress"}
                cancelled = (
                    {"cancel_initiated_at": "2099-01-01T00:00:00Z"} if server.jobs[found[0]]["cancelled"] else {}
                )
                return self.say({**said, **cancelled})
            data = [{"id": one["id"], "created_at": "2099-01-01T00:00:00Z",
                     "request_counts": {"processing": len(one["lines"])}} for one in server.jobs.values()]  # fmt: skip
            return self.say({"data": data, "has_more": False})
        if path.startswith("/v1beta"):
            if found:
                done = server.looked(found[0])
                state = "BATCH_STATE_SUCCEEDED" if done else "BATCH_STATE_RUNNING"
                state = "BATCH_STATE_CANCELLED" if server.jobs[found[0]]["cancelled"] else state
                return self.say({"metadata": {"state": state}, "response": {"responsesFile": f"files/{found[0]}"}})
            ops = [{"name": f"batches/{n}", "metadata": {"displayName": one["name"]}} for n, one in server.jobs.items()]
            return self.say({"operations": ops})
        if found:
            if server.jobs[found[0]]["failed"]:
                errors = {"data": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]}
                return self.say({"status": "failed", "errors": errors})
            done = server.looked(found[0])
            status = "cancelled" if server.jobs[found[0]]["cancelled"] else "completed" if done else "in_progress"
            return self.say({"status": status,
                             "output_file_id": f"out-{found[0]}" if done else None})  # fmt: skip
        data = [{"id": n, "metadata": {"llava_key": one["name"]}} for n, one in server.jobs.items()]
        return self.say({"data": data, "has_more": False})


@contextmanager
def batch_provider() -> Iterator[Provider]:
    """The server, running."""
    server = Provider()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def endpoint(server: Provider) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"
