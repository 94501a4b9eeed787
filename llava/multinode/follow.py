"""Stay with a TrainJob from its making to its end: adopt one that is there, show its log, clean up when cancelled."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import httpx

from llava.errors import StoppedError, TransientError, UserError
from llava.multinode.api import KubernetesApi, KubernetesError
from llava.multinode.trainjob import API_VERSION, NODE_CONTAINER, SPEC_HASH

DELETE_PATIENCE_S = 300.0


class TrainJobFailed(UserError):
    """The job ended without success; its log stands above."""


class TrainJobLost(TrainJobFailed, TransientError):
    """It failed and no rank said why, or only that another was lost: a node, a pod or a process went."""


class TrainJobCancelled(StoppedError):
    """This pod was asked to stop; the job has been deleted, its checkpoints are complete."""


def run_train_job(
    api: KubernetesApi,
    manifest: dict[str, Any],
    *,
    poll_s: float = 5.0,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
) -> None:
    """Make the job, or adopt the one of an earlier attempt, and stay until it is complete.

    Args:
        api: client of the namespace.
        manifest: what `train_job` made.
        poll_s: seconds between two looks at the job's status.
        say: where the log of node 0 and our own lines go.

    Raises:
        TrainJobFailed: it failed, or somebody deleted it.
        TrainJobCancelled: a signal asked this process to stop.
        KubernetesError: the API server refused.
    """
    name = manifest["metadata"]["name"]
    path = f"/apis/{API_VERSION}/namespaces/{api.namespace}/trainjobs/{name}"
    with _stop_on_signals() as stopped:
        _make_or_adopt(api, path, manifest, say, poll_s)
        ended = threading.Event()
        follower = threading.Thread(target=_follow, args=(api, name, ended, say, poll_s), daemon=True)
        follower.start()
        try:
            _wait(api, path, name, stopped, say, poll_s)
        finally:
            ended.set()
            follower.join(timeout=10)


def _make_or_adopt(
    api: KubernetesApi, path: str, manifest: dict[str, Any], say: Callable[[str], None], poll_s: float
) -> None:
    name = manifest["metadata"]["name"]
    for _ in range(3):
        if api.create(path.rpartition("/")[0], manifest) is not None:
            say(f"trainjob  {name}: made, {manifest['spec']['trainer']['numNodes']} nodes")
            return
        there = api.get(path)
        if there is None:
            continue
        if there["metadata"].get("deletionTimestamp"):
            say(f"trainjob  {name}: one of an earlier attempt is being deleted; waiting for its end")
            _wait_until_gone(api, path, poll_s)
            continue
        if there["metadata"].get("annotations", {}).get(SPEC_HASH) != manifest["metadata"]["annotations"][SPEC_HASH]:
            say(f"trainjob  {name}: one with other settings is there; replacing it")
        elif _condition(there, "Failed") is not None:
            say(f"trainjob  {name}: an earlier attempt failed; replacing it, training resumes from its checkpoints")
        else:
            # The pod that made it is gone, and with its owner the job would be collected.
            api.patch(path, {"metadata": {"ownerReferences": manifest["metadata"]["ownerReferences"]}})
            say(f"trainjob  {name}: adopted from an earlier attempt")
            return
        api.delete(path)
        _wait_until_gone(api, path, poll_s)
    raise KubernetesError(f"{path}: could be neither made nor adopted in three attempts")


def _wait_until_gone(api: KubernetesApi, path: str, poll_s: float) -> None:
    deadline = time.monotonic() + DELETE_PATIENCE_S
    while api.get(path) is not None:
        if time.monotonic() > deadline:
            raise KubernetesError(f"{path}: still there {DELETE_PATIENCE_S:.0f} s after it was deleted")
        time.sleep(poll_s)


def _wait(
    api: KubernetesApi,
    path: str,
    name: str,
    stopped: threading.Event,
    say: Callable[[str], None],
    poll_s: float,
) -> None:
    waiting = False
    while True:
        job = api.get(path)
        if job is None:
            raise TrainJobFailed(f"TrainJob {name}: was deleted from outside")
        if (done := _condition(job, "Complete")) is not None:
            say(f"trainjob  {name}: complete {done}".rstrip())
            return
        if (why := _condition(job, "Failed")) is not None:
            # Past its deadline it is not lost, and another one would have a whole deadline again.
            kind = TrainJobFailed if "deadline" in why.lower() else TrainJobLost
            raise kind(f"TrainJob {name}: failed: {why or 'no reason given'}; its log stands above")
        suspended = _condition(job, "Suspended")
        if suspended is not None and not waiting:
            say(f"trainjob  {name}: waits for its queue {suspended}".rstrip())
        waiting = suspended is not None
        if stopped.wait(poll_s):
            api.delete(path)
            raise TrainJobCancelled(f"TrainJob {name}: stopped and deleted; a new start resumes from its checkpoints")


def _follow(api: KubernetesApi, name: str, ended: threading.Event, say: Callable[[str], None], poll_s: float) -> None:
    """Show the log of node 0, taking up again where a connection broke or a pod was replaced."""
    selector = f"jobset.sigs.k8s.io/jobset-name={name},batch.kubernetes.io/job-completion-index=0"
    since: dict[str, str] = {}
    quiet = ""  # what was said of an interruption already: a log that is away for an hour is one line, not hundreds
    while True:
        last_round = ended.is_set()
        try:
            pods = api.get(f"/api/v1/namespaces/{api.namespace}/pods", labelSelector=selector) or {}
            for pod in pods.get("items", []):
                pod_name = pod["metadata"]["name"]
                for stamp, line in api.log_lines(pod_name, NODE_CONTAINER, since.get(pod_name, "")):
                    since[pod_name] = stamp
                    quiet = ""
                    say(line)
        except httpx.TimeoutException:
            # A node that computes is silent for minutes: asked again from the last line, and no word of it.
            pass
        except Exception as error:  # the log is a courtesy; what decides is the job's status
            if not last_round and str(error) != quiet:
                quiet = str(error)
                say(f"trainjob  {name}: log interrupted, taken up again from its last line: {error}")
        if last_round:
            return
        ended.wait(poll_s)


def _condition(job: dict[str, Any], kind: str) -> str | None:
    """Message of a condition that is true now; None when it is not."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition.get("type") == kind and condition.get("status") == "True":
            return str(condition.get("message", ""))
    return None


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """SIGTERM and Ctrl-C set the event, so that the job is deleted before we end."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
