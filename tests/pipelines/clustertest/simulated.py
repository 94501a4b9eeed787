"""A Kubeflow whose runs go their way by themselves: the KFP API, and the Kubernetes API of the same cluster.

Answers as KFP 2.17.0 gives them (backend/src/apiserver: server/api_converter.go, resource/resource_manager.go,
storage/run_store.go): proto names, nothing that is unset; a task is a node of the Argo workflow, a retried pod
`executor(1)`, a cached one SKIPPED; `:terminate` makes a run CANCELING and, when its workflow has ended, FAILED;
terminating a run that has ended is an error; deleting one deletes its workflow and pods.

What stages do is what they leave in the store: checkpoints, a manifest, `llava-outputs.json`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

from llava import storage
from llava.executor import RECORD_NAME, OutputRecord
from llava.pipelines.graph import FLOW, STAGES
from llava.stages.stage import load_stage
from tests.pipelines.kfp_server import API, KfpServer

NAMESPACE = "kubeflow"
LONG = 100  # steps; a longer training waits to be disturbed, as the real one takes its time


@dataclass
class SimulatedKubeflow(KfpServer):
    """State of the cluster, and how it is broken.

    Attributes:
        patience_s: what a long training waits to be disturbed.
        cache_works, resumes, restarts, recreates, terminates: what it does right.
        denied: `verb resource` that the caller may not.
    """

    patience_s: float = 10.0
    cache_works: bool = True
    resumes: bool = True
    restarts: bool = True
    recreates: bool = True
    terminates: bool = True
    no_experiments: str = ""
    loses_an_answer: bool = False  # of the first request to start a run: it has started, and the caller is not told
    ending_s: float = 0.0  # what the pods of a deleted run take to end; they write to their last
    denied: set[str] = field(default_factory=set)
    away: int = 0  # so many requests for pods end without an answer
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    disturbed: dict[str, str] = field(default_factory=dict)
    seen_before: set[str] = field(default_factory=set)
    executed: list[list[str]] = field(default_factory=list)
    writable: bool = True
    last_words: str = ""
    late: int = 0
    _threads: list[threading.Thread] = field(default_factory=list)

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON of one request to the KFP API."""
        route = path.removeprefix(API)
        if route == "/experiments" and method == "GET":
            name = json.loads(query["filter"])["predicates"][0]["stringValue"]
            fitting = [e for e in self.experiments.values() if e["display_name"] == name]
            return 200, {"experiments": fitting} if fitting else {}
        if route == "/experiments" and method == "POST":
            if self.no_experiments:
                return 403, {"error": self.no_experiments, "code": 7}
            made = {**body, "experiment_id": f"experiment-{len(self.experiments) + 1}"}
            self.experiments[made["experiment_id"]] = made
            return 200, made
        if found := re.fullmatch(r"/experiments/(.+)", route):
            if self.experiments.pop(found[1], None) is None:
                return 404, {"error": "ResourceNotFoundError", "code": 5}
            return 200, {}
        if route == "/runs" and method == "POST":
            status, made = super().answer(method, path, query, body)
            made["run_details"] = {"task_details": []}
            thread = threading.Thread(target=self._work, args=(made,), daemon=True)
            self._threads.append(thread)
            thread.start()
            if self.loses_an_answer and len(self.runs) == 1:
                return 500, {"error": "connection reset", "code": 13}
            return status, made
        if found := re.fullmatch(r"/runs/([^:/]+):terminate", route):
            run = self.runs[found[1]]
            if run["state"] not in ("PENDING", "RUNNING"):
                return 400, {"error": f"Failed to terminate a run {found[1]}. Row not found", "code": 3}
            run["state"] = "CANCELING"
            self.disturbed[found[1]] = "terminated"
            return 200, {}
        if method == "DELETE" and (found := re.fullmatch(r"/runs/([^:/]+)", route)):
            if self.runs.pop(found[1], None) is None:
                return 404, {"error": "ResourceNotFoundError", "code": 5}
            self.disturbed[found[1]] = "deleted"
            for name, pod in list(self.pods.items()):
                if pod["metadata"]["labels"]["pipeline/runid"] == found[1]:
                    pod["metadata"]["deletionTimestamp"] = "2026-08-21T21:10:03Z"
                    threading.Timer(self.ending_s, self._gone, [name]).start()
            return 200, {}
        return super().answer(method, path, query, body)

    def _gone(self, pod: str) -> None:
        if self.ending_s:
            storage.write_text(storage.join(self.last_words, "late"), "written by a pod that was told to end")
            self.late += 1
        self.pods.pop(pod, None)

    def _work(self, run: dict[str, Any]) -> None:
        """One run's way."""
        spec, config = run["pipeline_spec"]["pipeline_spec"], run["runtime_config"]
        pipeline, parameters, root = spec["pipelineInfo"]["name"], config["parameters"], config["pipeline_root"]
        run["state"] = "RUNNING"
        self.last_words = root
        executed: list[str] = []
        self.executed.append(executed)
        made: dict[tuple[str, str], str] = {}
        for stage in (stage for stage in STAGES if stage in spec["root"]["dag"]["tasks"]):
            task = spec["root"]["dag"]["tasks"][stage]
            key = json.dumps([pipeline, stage, parameters], sort_keys=True)
            if task["cachingOptions"].get("enableCache") and key in self.seen_before and self.cache_works:
                self._task(run, "executor", "SKIPPED")
                continue
            self.seen_before.add(key)
            executed.append(stage)
            if not self._stage(
                run, stage, storage.join(root, pipeline, run["run_id"], stage, "5a17"), parameters, made
            ):
                run["state"] = "FAILED"
                return
        run["state"] = "SUCCEEDED"

    def _stage(
        self, run: dict[str, Any], stage: str, folder: str, parameters: dict[str, Any], made: dict[tuple[str, str], str]
    ) -> bool:
        pod = self._pod(run["run_id"], stage, 0)
        outputs = {name: storage.join(folder, name) for name in load_stage(stage).outputs.model_fields}
        metrics: dict[str, float] = {}
        overrides = json.loads(parameters.get(f"{stage}_overrides") or "{}")
        if "nowhere" in parameters.get("images_uri", "") and stage == "pretrain":
            return self._ended(run, pod, "FAILED")
        if overrides.get(f"{stage}.max_steps", 0) > LONG:
            storage.write_text(storage.join(outputs["checkpoints"], "step-00000020/manifest.json"), "{}")
            what = self._disturbance(run["run_id"])
            if (what == "killed" and self.restarts) or not what:
                pass
            elif what == "pod" and self.recreates:
                self._task(run, "executor(0)", "FAILED")
                pod = self._pod(run["run_id"], stage, 1)
            else:
                if what == "terminated" and not self.terminates:
                    return False  # the run is marked, its pod goes on
                return self._ended(run, pod, "FAILED")
            if what and self.resumes:
                metrics["resumed_from_step"] = 20.0
        nodes = overrides.get(f"{stage}.nodes", 1)
        for name, uri in outputs.items():
            manifest = {"extra": {"world_size": nodes}}
            storage.write_json(storage.join(uri, "manifest.json") if "data" not in name else uri, manifest)
        inputs = {slot: made.get(source, "s3://elsewhere") for slot, source in FLOW[stage].items()}
        made.update({(stage, name): uri for name, uri in outputs.items()})
        record = OutputRecord(
            stage=stage, settings={}, inputs=inputs, outputs=outputs, metrics=metrics, seconds=1, finished_unix=1
        )
        if run["run_id"] in self.runs:
            storage.write_json(storage.join(folder, RECORD_NAME), record.model_dump())
        return self._ended(run, pod, "SUCCEEDED")

    def _disturbance(self, run: str) -> str:
        deadline = time.monotonic() + self.patience_s
        while run not in self.disturbed and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.disturbed.get(run, "")

    def _ended(self, run: dict[str, Any], pod: dict[str, Any], state: str) -> bool:
        pod["status"]["phase"] = "Succeeded" if state == "SUCCEEDED" else "Failed"
        self._task(run, "executor", state)
        return state == "SUCCEEDED"

    def _task(self, run: dict[str, Any], name: str, state: str) -> None:
        task = {"run_id": run["run_id"], "task_id": f"task-{time.monotonic_ns()}", "display_name": name, "state": state,
                "create_time": "2026-08-21T21:10:03Z",
                "start_time": "2026-08-21T21:10:03Z", "end_time": "0001-01-01T00:00:00Z",
                "child_tasks": [{"pod_name": "llava-full-x7x7d-1"}]}  # fmt: skip
        run["run_details"]["task_details"].append(task)

    def _pod(self, run: str, stage: str, attempt: int) -> dict[str, Any]:
        name = f"llava-{run}-{stage}-{attempt}"
        labels = {"pipeline/runid": run, "app.kubernetes.io/component": stage}
        pod = {"metadata": {"name": name, "uid": f"uid-{name}", "labels": labels}, "status": {"phase": "Running"}}
        if run in self.runs:
            self.pods[name] = pod
        return pod

    def kubernetes(
        self, method: str, path: str, query: dict[str, str], body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of one request to the Kubernetes API."""
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        if path.endswith("/selfsubjectaccessreviews"):
            asked = body["spec"]["resourceAttributes"]
            what = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
            allowed = f"{asked['verb']} {what}" not in self.denied and asked["namespace"] == NAMESPACE
            return 201, {**body, "status": {"allowed": allowed}}
        if path == pods:
            wanted = [part.partition("=") for part in query["labelSelector"].split(",")]
            fitting = []
            for pod in list(self.pods.values()):
                labels = pod["metadata"]["labels"]
                if all(key in labels and (not equal or labels[key] == value) for key, equal, value in wanted):
                    fitting.append(pod)
            return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": fitting}
        if method == "DELETE" and path.startswith(pods):
            gone = self.pods.get(path.rsplit("/", 1)[-1])
            if gone is None or body["preconditions"]["uid"] != gone["metadata"]["uid"]:
                return 404, {"message": "not found", "reason": "NotFound", "code": 404}
            del self.pods[gone["metadata"]["name"]]
            self.disturbed[gone["metadata"]["labels"]["pipeline/runid"]] = "pod"
            return 200, gone
        if path in self.objects:
            return 200, self.objects[path]
        return 404, {"message": "not found", "reason": "NotFound", "code": 404}

    def kill(self, path: str, command: list[str]) -> str:
        """What `exec` in a pod prints."""
        pod = self.pods[path.split("/")[-2]]
        assert command[:2] == ["python", "-c"] and "SIGKILL" in command[2]
        self.disturbed[pod["metadata"]["labels"]["pipeline/runid"]] = "killed"
        return "killed 17\n"


@contextmanager
def kubernetes_api(state: SimulatedKubeflow) -> Iterator[str]:
    """The Kubernetes API of the cluster on a free port: its URL."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            parsed = urlparse(self.path)
            query = parse_qs(parsed.query)
            if parsed.path.endswith("/exec"):
                self._exec(parsed.path, query)
                return
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            if state.away and parsed.path.endswith("/pods"):
                state.away -= 1
                self.close_connection = True
                return
            status, reply = state.kubernetes(self.command, parsed.path, {k: v[0] for k, v in query.items()}, body)
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _exec(self, path: str, query: dict[str, list[str]]) -> None:
            """The exec subresource: a websocket of v4.channel.k8s.io, one byte of channel before the data."""
            assert query["container"] == ["main"]
            magic = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode())
            self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
            self.end_headers()
            said = state.kill(path, query["command"]).encode()
            for channel, data in ((1, said), (3, b'{"metadata":{},"status":"Success"}')):
                self.wfile.write(b"\x82" + struct.pack("B", len(data) + 1) + bytes([channel]) + data)
            self.wfile.write(b"\x88\x02\x03\xe8")
            self.wfile.flush()
            self.close_connection = True

        do_GET = do_POST = do_DELETE = _serve

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()
