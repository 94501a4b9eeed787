"""A real HTTP server that behaves as the Kubernetes API server does for TrainJobs, pods, logs and objects to read.

A test decides how a job proceeds by `condition` and `logs`, or lets `tests.multinode.trainer` start real processes for
its nodes.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NAMESPACE = "team"
JOBS = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


@dataclass
class ApiServer:
    """State of the cluster, as far as these tests go."""

    url: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)  # by path, for whatever is only read
    forbidden: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    breaks: int = 0
    on_create: Callable[[dict[str, Any]], None] = lambda job: None
    on_delete: Callable[[dict[str, Any]], None] = lambda job: None

    def condition(self, name: str, kind: str, message: str = "") -> None:
        """Set a condition of a job, as the controller does."""
        status = self.jobs[name].setdefault("status", {})
        status["conditions"] = [{"type": kind, "status": "True", "message": message}]

    def only_job(self) -> dict[str, Any]:
        """The one job there is."""
        (job,) = self.jobs.values()
        return job

    def asked(self, method: str) -> list[str]:
        """Paths of the recorded requests with a method."""
        return [path for verb, path in self.requests if verb == method]

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and object of one request."""
        self.requests.append((method, path))
        if self.failures:
            return self.failures.pop(0), {"message": "as the test wants"}
        if path in self.forbidden:
            return 403, {"message": f"{path} is forbidden"}
        if method == "GET" and path in self.objects:
            return 200, self.objects[path]
        if (method, path) == ("POST", JOBS):
            name = body["metadata"]["name"]
            if name in self.jobs:
                return 409, {"message": f"trainjobs {name!r} already exists"}
            self.jobs[name] = body
            self.on_create(body)
            return 201, body
        if found := re.fullmatch(f"{JOBS}/(.+)", path):
            job = self.jobs.get(found[1])
            if job is None:
                return 404, {"message": f"trainjobs {found[1]!r} not found"}
            if method == "PATCH":
                job["metadata"].update(body["metadata"])
            if method == "DELETE":
                self.on_delete(job)
                del self.jobs[found[1]]
            return 200, job
        if (method, path) == ("GET", PODS):
            return 200, {"items": [{"metadata": {"name": name}} for name in self.logs]}
        if found := re.fullmatch(f"{PODS}/(.+)", path):
            pod = self.pods.get(found[1])
            return (200, pod) if pod else (404, {"message": "no such pod"})
        return 404, {"message": f"the server could not find the requested resource {path}"}


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """The server on a free port, stopped at the end."""
    state = ApiServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # the client was killed
                super().handle()

        def _serve(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            if log := re.fullmatch(f"{PODS}/(.+)/log", path):
                self._log(log[1])
                return
            state.tokens.add(self.headers.get("Authorization", ""))
            status, reply = state.answer(self.command, path, json.loads(raw) if raw else {})
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _log(self, pod: str) -> None:
            """Lines as they come, until the job they belong to has ended; breaks off in between when told to."""
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            sent, broken = 0, False
            lines = state.logs[pod]
            while True:
                ended = any(job.get("status", {}).get("conditions") for job in state.jobs.values()) or not state.jobs
                for number, line in enumerate(lines[sent:], sent):
                    data = f"2026-01-01T00:00:00.{number:06d}Z {line}\n".encode()
                    self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                    sent = number + 1
                    if state.breaks and sent >= 1:
                        state.breaks -= 1
                        broken = True
                        break
                if broken:
                    self.close_connection = True
                    return
                if ended and sent == len(lines):
                    self.wfile.write(b"0\r\n\r\n")
                    return
                self.wfile.flush()
                time.sleep(0.02)

        do_GET = do_POST = do_PATCH = do_DELETE = _serve

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()
