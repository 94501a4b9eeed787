"""What the cluster test does to pods of its own runs: finds them, kills a process in one, deletes one.

With the rights of the person who runs the test, by kubeconfig. Every right is asked for beforehand
(SelfSubjectAccessReview, which everybody may create), so that what cannot be tried is known before anything starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llava.errors import UserError
from llava.pipelines.checks.cluster import Cluster, Forbidden, NotAsked
from llava.retrying import Pauses

# Labels that Kubeflow's compiler and our packages put on every pod of a stage.
RUN_LABEL, STAGE_LABEL = "pipeline/runid", "app.kubernetes.io/component"
MAIN = "main"  # Argo's name for the user's container
WORKER = "llava.training.worker"
_PAUSES = Pauses(first=1.0, longest=10.0)
_PATIENCE_S = 60.0  # with an API server that is away or busy, when nothing is changed by asking again

# Any rank will do. The image has no `ps` or `pkill`, but it has Python and /proc.
_KILL = f"""
import os, signal, sys
for name in sorted(filter(str.isdigit, os.listdir("/proc")), key=int, reverse=True):
    try:
        words = open(f"/proc/{{name}}/cmdline").read().split(chr(0))
    except OSError:
        continue
    if "{WORKER}" in words and "-c" not in words[:2] and "llava.training.elastic" not in words:
        os.kill(int(name), signal.SIGKILL)
        print("killed", name)
        sys.exit(0)
sys.exit("no worker")
"""


class PodGone(UserError):
    """The pod has ended, or there is none of that run and stage."""


@dataclass(frozen=True)
class Right:
    """A verb on a kind of object in the run's namespace."""

    verb: str
    resource: str
    group: str = ""

    def __str__(self) -> str:
        kind, _, part = self.resource.partition("/")
        where = f"{kind}.{self.group}" if self.group else kind
        return f"{self.verb} {where}{'/' + part if part else ''}"


LIST_PODS = Right("list", "pods")
DELETE_PODS = Right("delete", "pods")
# An exec is a GET that is upgraded; from Kubernetes 1.35 the server wants `create` for it too.
EXEC_IN_PODS = (Right("get", "pods/exec"), Right("create", "pods/exec"))


@dataclass(frozen=True)
class Pod:
    """One pod of a stage.

    Attributes:
        name, uid: its own.
        phase: Kubernetes' (Pending, Running, Succeeded, Failed).
        why: what it waits for, as Kubernetes says it: ImagePullBackOff and the image, what no node has; empty: nothing.
    """

    name: str
    uid: str
    phase: str
    why: str = ""


class Pods(Cluster):
    """The pods of one namespace.

    Args:
        namespace: where the runs' pods are.
        context: kubeconfig context; None: the current one.

    Raises:
        NotAsked, SettingsError: as `Cluster`.
    """

    def __init__(self, namespace: str, context: str | None = None) -> None:
        super().__init__(context)
        self.namespace = namespace

    def lacking(self, rights: Sequence[Right]) -> list[Right]:
        """Those of `rights` that the caller does not have here.

        Raises:
            NotAsked: the cluster does not answer.
        """
        from kubernetes import client

        reviews = client.AuthorizationV1Api(self._client)
        found = []
        for right in rights:
            resource, _, part = right.resource.partition("/")
            attributes = {"namespace": self.namespace, "verb": right.verb, "group": right.group, "resource": resource}
            if part:
                attributes["subresource"] = part
            body = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            }
            reply = self._asking(lambda body=body: reviews.create_self_subject_access_review(body))
            if not reply.status.allowed:
                found.append(right)
        return found

    def of(self, run: str, stage: str = "", *, ending: bool = False) -> list[Pod]:
        """Pods of a run, or of one of its stages; those of the drivers are not among them.

        Args:
            run: its id.
            stage: of this stage only.
            ending: those too that have been deleted and have not ended yet; they still write.

        Raises:
            Forbidden, NotAsked: they cannot be listed.
        """
        from kubernetes import client

        labels = f"{RUN_LABEL}={run},{STAGE_LABEL}" + (f"={stage}" if stage else "")
        listed = self._listing(
            lambda: client.CoreV1Api(self._client).list_namespaced_pod(self.namespace, label_selector=labels)
        )
        return [
            Pod(item.metadata.name, item.metadata.uid, item.status.phase, _why_waiting(item.status))
            for item in listed.items
            if ending or item.metadata.deletion_timestamp is None
        ]

    def delete(self, pod: Pod) -> None:
        """Delete a pod at once, as a node that goes away would.

        Raises:
            PodGone: it has gone by itself.
        """
        from kubernetes import client

        body = client.V1DeleteOptions(grace_period_seconds=0, preconditions=client.V1Preconditions(uid=pod.uid))
        self._asking(
            lambda: client.CoreV1Api(self._client).delete_namespaced_pod(pod.name, self.namespace, body=body), pod.name
        )

    def kill_worker(self, pod: Pod) -> str:
        """SIGKILL one training process in a pod; returns what the pod said.

        Raises:
            PodGone: the pod or the process has ended.
        """
        from kubernetes import client
        from kubernetes.stream import stream

        def execute() -> str:
            # `stream` replaces the client's transport by websockets, so it gets one of its own.
            own = client.CoreV1Api(client.ApiClient(self._client.configuration))
            return str(
                stream(
                    own.connect_get_namespaced_pod_exec, pod.name, self.namespace, container=MAIN,
                    command=["python", "-c", _KILL], stdin=False, stdout=True, stderr=True, tty=False,
                    _request_timeout=60,
                )
            )  # fmt: skip

        said = str(self._asking(execute, pod.name)).strip()
        if not said.startswith("killed"):
            raise PodGone(f"pod {pod.name}: {said or 'no worker to kill'}")
        return said

    def _listing(self, call: Any) -> Any:
        """As `_asking`, and again for a while where the server is away: a probe is no test of the caller's network."""
        last: NotAsked | None = None
        for _ in _PAUSES.attempts(within_s=_PATIENCE_S):
            try:
                return self._asking(call)
            except Forbidden:
                raise
            except NotAsked as error:
                last = error
        assert last is not None, "there is a first attempt"
        raise last

    def _asking(self, call: Any, pod: str = "") -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call()
        except ApiException as error:
            said = " ".join(str(error.reason).split())[:300]
            if error.status in (404, 409) and pod:
                raise PodGone(f"pod {pod}: {said}") from error
            kind = Forbidden if error.status == 403 or "403" in said else NotAsked
            raise kind(f"{self.where} refused ({error.status} {said})") from error
        except (HTTPError, OSError) as error:
            raise NotAsked(f"{self.where}: no answer: {' '.join(str(error).split())[:300]}") from error


def _why_waiting(status: Any) -> str:
    """From the conditions and container states of a V1PodStatus."""
    for condition in status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{condition.reason}: {condition.message or ''}".strip(": ")
    for container in [*(status.init_container_statuses or []), *(status.container_statuses or [])]:
        waiting = container.state and container.state.waiting
        if waiting and waiting.reason not in ("ContainerCreating", "PodInitializing"):
            return f"{waiting.reason}: {waiting.message or ''}".strip(": ")[:200]
    return ""
