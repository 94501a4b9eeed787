"""The few calls to the Kubernetes API that a stage's pod makes, over HTTP.

Inside a pod, address, certificate and token are where Kubernetes puts them. `LLAVA_KUBERNETES_API` (a URL, as
`kubectl proxy` gives one) takes their place outside.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from llava.errors import SettingsError, TransientError, UserError
from llava.retrying import Pauses

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ATTEMPTS = 6
_PAUSES = Pauses(first=1.0, longest=16.0)


class KubernetesError(UserError):
    """The API server refused."""


class KubernetesAway(KubernetesError, TransientError):
    """The API server did not answer, or not with success, in several attempts."""


class KubernetesApi:
    """A client for one namespace.

    Args:
        server: URL of the API server; None: this pod's, or `LLAVA_KUBERNETES_API`.
        namespace: None: this pod's, or `LLAVA_NAMESPACE`.

    Raises:
        SettingsError: not in a pod, and no address given.
    """

    def __init__(self, server: str | None = None, namespace: str | None = None) -> None:
        server = server or os.environ.get("LLAVA_KUBERNETES_API")
        verify: bool | str = True
        if not server:
            host = os.environ.get("KUBERNETES_SERVICE_HOST")
            if not host:
                raise SettingsError(
                    "several nodes need Kubernetes: this is no pod; use a recipe with nodes: 1, "
                    "or set LLAVA_KUBERNETES_API"
                )
            server = f"https://{host}:{os.environ.get('KUBERNETES_SERVICE_PORT', '443')}"
            verify = str(ACCOUNT / "ca.crt")
        self.namespace = namespace or os.environ.get("LLAVA_NAMESPACE") or _read(ACCOUNT / "namespace") or "default"
        # follow=true answers as long as the pod lives, so only a silent connection times out, and is taken up again.
        self._client = httpx.Client(base_url=server, verify=verify, timeout=httpx.Timeout(30.0, read=60.0))

    def get(self, path: str, **query: str) -> dict[str, Any] | None:
        """An object, or None when there is none."""
        reply = self._send("GET", path, query=query)
        return None if reply.status_code == 404 else _json(reply)

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Create an object; None when one of that name exists."""
        reply = self._send("POST", path, body=body, expected=(409,))
        return None if reply.status_code == 409 else _json(reply)

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Merge `body` into an object."""
        return _json(self._send("PATCH", path, body=body, content_type="application/merge-patch+json"))

    def delete(self, path: str) -> None:
        """Delete an object and, before it, what it owns; absent is fine."""
        self._send("DELETE", path, query={"propagationPolicy": "Foreground"})

    def log_lines(self, pod: str, container: str, since: str = "") -> Iterator[tuple[str, str]]:
        """(timestamp, line) of a container as it writes them, those after `since` only; ends with the container.

        Raises:
            httpx.HTTPError: the connection broke; ask again with the last timestamp seen.
        """
        query = {"container": container, "follow": "true", "timestamps": "true"}
        if since:
            query["sinceTime"] = since
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        with self._client.stream("GET", path, params=query, headers=self._headers()) as reply:
            if reply.status_code != 200:
                return  # not started yet, or gone
            for line in reply.iter_lines():
                stamp, _, text = line.partition(" ")
                if _moment(stamp) > _moment(since):  # sinceTime counts whole seconds
                    yield stamp, text

    def _headers(self) -> dict[str, str]:
        # Read each time: Kubernetes renews the token during a long run.
        token = _read(ACCOUNT / "token")
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        content_type: str = "application/json",
        expected: tuple[int, ...] = (),
    ) -> httpx.Response:
        problem = ""
        for _ in _PAUSES.attempts(most=ATTEMPTS):
            try:
                headers = {**self._headers(), **({"Content-Type": content_type} if body is not None else {})}
                reply = self._client.request(method, path, params=query, json=body, headers=headers)
            except httpx.HTTPError as error:
                problem = f"no answer: {error}"
                continue
            if reply.status_code < 400 or reply.status_code in expected:
                return reply
            if reply.status_code == 404 and method in ("GET", "DELETE"):
                return reply
            said = _message(reply)
            if reply.status_code == 403:
                raise KubernetesError(
                    f"{method} {path}: forbidden: {said}; the service account needs the role of "
                    "manifests/components/multi-node"
                )
            if reply.status_code == 404:
                raise KubernetesError(f"{method} {path}: not found: {said}; is Kubeflow Trainer installed?")
            if reply.status_code < 500 and reply.status_code != 429:
                raise KubernetesError(f"{method} {path}: refused ({reply.status_code}): {said}")
            problem = f"{reply.status_code}: {said}"
        raise KubernetesAway(f"{method} {path}: gave up after {ATTEMPTS} attempts; the last: {problem}")


def _moment(stamp: str) -> tuple[str, str]:
    """A log's timestamp in a form that sorts: Kubernetes leaves out trailing zeros of the fraction."""
    seconds, _, fraction = stamp.removesuffix("Z").partition(".")
    return seconds, fraction.ljust(9, "0")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _json(reply: httpx.Response) -> dict[str, Any]:
    value = reply.json()
    assert isinstance(value, dict), "Kubernetes answers with objects"
    return value


def _message(reply: httpx.Response) -> str:
    try:
        return str(reply.json().get("message", ""))[:500]
    except ValueError:
        return " ".join(reply.text.split())[:500]
