"""Kubeflow Trainer, JobSet and the kubelets of its nodes, as far as a TrainJob can tell: real processes for its nodes.

Each node runs the job's own command with the job's own environment, secrets resolved, and what Trainer adds to it
(`PET_NNODES`, ...). As with JobSet, one failed node ends the job, and the others are told to stop; the output of a node
is the log of its pod.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from tests.multinode.api_server import ApiServer
from tests.s3_server import free_port

ROOT = Path(__file__).parents[2]
NOTICED_AFTER_S = 1.0  # from the end of a pod to the end of its peers; a cluster takes longer
GRACE_S = 10.0


@dataclass
class Attempt:
    """The processes of one TrainJob, in the order of their node ranks."""

    name: str
    nodes: list[subprocess.Popen[str]] = field(default_factory=list)
    output: list[list[str]] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def all_output(self) -> str:
        """What every node said, for a test's message."""
        return "\n".join(f"node {rank}: {line}" for rank, lines in enumerate(self.output) for line in lines)


class Trainer:
    """Starts the nodes of every TrainJob the server is given.

    Args:
        server: whose jobs it runs; it sets their conditions and their pods' logs.
        folder: scratch space; each node gets its own below it.
        secrets: name of a Secret or ConfigMap -> what it holds.
    """

    def __init__(self, server: ApiServer, folder: Path, secrets: dict[str, dict[str, str]]) -> None:
        self.server, self.folder, self.secrets = server, folder, secrets
        self.attempts: list[Attempt] = []
        server.on_create = self._start
        server.on_delete = self._delete

    def close(self) -> None:
        """End whatever still runs."""
        for attempt in self.attempts:
            _end(attempt.nodes, 0)
            for thread in attempt.threads:
                thread.join(timeout=30)

    def _start(self, job: dict[str, Any]) -> None:
        asked = job["spec"]["trainer"]
        attempt = Attempt(job["metadata"]["name"])
        port = str(free_port())
        for rank in range(asked["numNodes"]):
            scratch = self.folder / f"attempt-{len(self.attempts)}-node-{rank}"
            scratch.mkdir(parents=True)
            environment = {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                **{item["name"]: self._value(item, scratch) for item in asked["env"]},
                "PET_NNODES": str(asked["numNodes"]),
                "PET_NPROC_PER_NODE": "1",
                "PET_NODE_RANK": str(rank),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": port,
                # All nodes are this machine.
                "GLOO_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": "1",
            }
            process = subprocess.Popen(
                asked["command"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            attempt.nodes.append(process)
            attempt.output.append([])
        self.attempts.append(attempt)
        # Only the log of node 0 is asked for by a label selector, so only that one is a pod of the server's.
        self.server.logs = {f"{attempt.name}-node-0-0-{len(self.attempts)}": attempt.output[0]}
        for process, lines in zip(attempt.nodes, attempt.output, strict=True):
            attempt.threads.append(threading.Thread(target=_collect, args=(process, lines), daemon=True))
        attempt.threads.append(threading.Thread(target=self._watch, args=(attempt,), daemon=True))
        for thread in attempt.threads:
            thread.start()

    def _value(self, item: dict[str, Any], scratch: Path) -> str:
        if "value" in item:
            return str(item["value"]).replace("/scratch", str(scratch))
        source = item["valueFrom"]
        reference = source.get("secretKeyRef") or source["configMapKeyRef"]
        return self.secrets[reference["name"]][reference["key"]]

    def _watch(self, attempt: Attempt) -> None:
        while True:
            codes = [process.poll() for process in attempt.nodes]
            if any(codes):  # neither None nor 0
                time.sleep(NOTICED_AFTER_S)
                _end(attempt.nodes, GRACE_S)
                rank, code = next((rank, code) for rank, code in enumerate(codes) if code)
                self._condition(attempt, "Failed", f"jobset failed: pod {attempt.name}-node-0-{rank} ended with {code}")
                return
            if None not in codes:
                for thread in attempt.threads[:-1]:  # their last lines belong to the log
                    thread.join(timeout=30)
                self._condition(attempt, "Complete", "jobset completed successfully")
                return
            time.sleep(0.05)

    def _condition(self, attempt: Attempt, kind: str, message: str) -> None:
        with contextlib.suppress(KeyError):  # deleted meanwhile
            if attempt is self.attempts[-1]:
                self.server.condition(attempt.name, kind, message)

    def _delete(self, job: dict[str, Any]) -> None:
        for attempt in self.attempts:
            if attempt.name == job["metadata"]["name"]:
                _end(attempt.nodes, GRACE_S)


def _collect(process: subprocess.Popen[str], lines: list[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip("\n"))


def _end(nodes: list[subprocess.Popen[str]], grace_s: float) -> None:
    """Stop nodes as a kubelet stops a pod: SIGTERM to its first process, after the grace time SIGKILL to all."""
    everything = []
    for node in nodes:
        if node.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                everything += psutil.Process(node.pid).children(recursive=True)
            node.terminate()
    deadline = time.monotonic() + grace_s
    for node in nodes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.wait(timeout=max(0.0, deadline - time.monotonic()))
    for process in [*everything, *(node for node in nodes if node.poll() is None)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    for node in nodes:
        node.wait(timeout=30)
