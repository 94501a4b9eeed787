"""A real HTTP server that answers as Kubeflow Pipelines' v2beta1 API does, for the calls we make, and records them."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

API = "/apis/v2beta1"
OLDER_API = "/apis/v1beta1"


@dataclass
class KfpServer:
    """State of the service: what was asked, what it knows."""

    url: str = ""
    requests: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    workflows: dict[str, str] = field(default_factory=dict)  # run -> Argo's workflow, as the older API shows it
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: list[dict[str, Any]] = field(default_factory=list)
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)
    token: str = ""
    health: dict[str, Any] = field(default_factory=lambda: {"multi_user": False})
    refuse: tuple[int, str] | None = None

    def of(self, method: str, path: str) -> list[dict[str, Any]]:
        """Bodies (or queries) of the recorded requests to a path."""
        return [body for asked, where, body in self.requests if (asked, where) == (method, API + path)]

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON of one request."""
        route = (method, path.removeprefix(API))
        if self.refuse:
            return self.refuse[0], {"error": self.refuse[1], "code": 3}
        if route == ("GET", "/healthz"):
            return 200, self.health
        if route == ("GET", "/experiments"):
            return 200, {}
        if route == ("POST", "/experiments"):
            return 200, {**body, "experiment_id": "experiment-1"}
        if route == ("POST", "/runs"):
            made = {**body, "run_id": f"run-{len(self.runs) + 1}", "state": "PENDING"}
            self.runs[made["run_id"]] = made
            return 200, made
        if found := re.fullmatch(f"{OLDER_API}/runs/(.+)", path):
            manifest = self.workflows.get(found[1])
            if manifest is None:
                return 404, {"error": f"run {found[1]} not found", "code": 5}
            return 200, {"run": {"id": found[1]}, "pipeline_runtime": {"workflow_manifest": manifest}}
        if found := re.fullmatch(r"/runs/(.+)", route[1]):
            run = self.runs.get(found[1])
            if method == "DELETE":
                self.runs.pop(found[1], None)
            return (200, run) if run else (404, {"error": f"run {found[1]} not found", "code": 5})
        if route == ("GET", "/pipelines"):
            name = json.loads(query["filter"])["predicates"][0].get("stringValue") if "filter" in query else None
            fitting = [p for p in self.pipelines.values() if p["display_name"] == name]
            return 200, {"pipelines": fitting} if fitting else {}
        if route == ("POST", "/pipelines/upload"):
            made = {"pipeline_id": f"pipeline-{len(self.pipelines) + 1}", "display_name": query["name"]}
            self.pipelines[made["pipeline_id"]] = made
            return 200, made
        if route == ("POST", "/pipelines/upload_version"):
            made = {
                "pipeline_id": query["pipelineid"],
                "pipeline_version_id": f"version-{len(self.versions) + 1}",
                "display_name": query["name"],
            }
            self.versions.append(made)
            return 200, made
        if route == ("GET", "/runs"):
            asked = query.get("experiment_id")
            listed = [run for run in self.runs.values() if asked is None or run.get("experiment_id") == asked]
            start, size = int(query.get("page_token") or 0), int(query.get("page_size") or 10)
            more = {"next_page_token": str(start + size)} if start + size < len(listed) else {}
            return 200, {"runs": listed[start : start + size], "total_size": len(listed), **more}
        if route == ("POST", "/recurringruns"):
            made = {**body, "recurring_run_id": f"schedule-{len(self.schedules) + 1}"}
            # backend/src/apiserver/server/api_converter.go: the status is what the mode asked for.
            made["status"] = "ENABLED" if body.get("mode") == "ENABLE" else "DISABLED"
            self.schedules[made["recurring_run_id"]] = made
            return 200, made
        if route == ("GET", "/recurringruns"):
            return 200, {"recurringRuns": list(self.schedules.values())} if self.schedules else {}
        if found := re.fullmatch(r"/recurringruns/([^:]+)(:enable|:disable)?", route[1]):
            if found[1] not in self.schedules:
                return 404, {"error": f"ResourceNotFoundError: Job {found[1]} not found.", "code": 5}
            if method == "DELETE":
                del self.schedules[found[1]]
            elif found[2]:
                self.schedules[found[1]]["status"] = "ENABLED" if found[2] == ":enable" else "DISABLED"
            return 200, {}
        return 501, {"error": f"{method} {path} is not of this server"}


@contextmanager
def kfp_server(served: KfpServer | None = None) -> Iterator[KfpServer]:
    """The server on a free port, stopped at the end; `served` is one that does more than answer."""
    state = served or KfpServer()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            parsed = urlparse(self.path)
            query = {name: values[0] for name, values in parse_qs(parsed.query).items()}
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            is_json = "json" in self.headers.get("Content-Type", "")
            body = json.loads(raw) if raw and is_json else {"_upload": raw.decode("utf-8", "replace")} if raw else {}
            if state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
                status, reply = 401, {"error": "no valid token"}
            else:
                state.requests.append((self.command, parsed.path, {**query, **body}))
                status, reply = state.answer(self.command, parsed.path, query, body)
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _serve

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()
