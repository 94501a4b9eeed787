"""How the machine that runs the cluster test reaches the bucket: by its own environment, or as the pods do.

The test's data goes into the bucket from here and its results are read back. With `AWS_ACCESS_KEY_ID` (or a profile, or
an identity) in the environment that is what is used. Without, the ConfigMap and the Secret that the pods use are read
with the caller's own rights, and a store that has only a name inside the cluster is reached by `kubectl port-forward`.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import yaml

from llava import storage
from llava.errors import SettingsError, StorageError
from llava.pipelines.checks.cluster import NotAsked, Reader
from llava.storage import clients

CONFIG, SECRET, LAUNCHER = "llava-storage", "llava-storage", "kfp-launcher"
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_OWN = (*_KEYS[:1], "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
_FORWARD_S = 30.0
_AGAIN_S = 1.0


class Unreachable(StorageError):
    """The bucket cannot be reached from here; the message says what would do it."""


def bucket_of(cluster: Reader | None, namespace: str) -> str:
    """The bucket (and prefix) that the namespace's runs use: the launcher's default pipeline root.

    Raises:
        SettingsError: it cannot be read, or is none of ours; the message asks for --bucket.
    """
    asked = "give --bucket s3://BUCKET/PREFIX, a place that the runs may write to"
    try:
        found = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/{LAUNCHER}") if cluster else None
    except NotAsked as error:
        raise SettingsError(f"{asked}; ConfigMap {LAUNCHER} could not be read: {error}") from error
    root = str((found or {}).get("data", {}).get("defaultPipelineRoot", ""))
    if not root.startswith(("s3://", "minio://")):
        raise SettingsError(f"{asked}; ConfigMap {LAUNCHER} says {root!r}" if found else asked)
    return root.partition("?")[0].rstrip("/")


@contextmanager
def reaching(cluster: Reader | None, namespace: str, context: str | None = None) -> Iterator[str]:
    """Make the bucket reachable by `llava.storage` in this process; gives how, in words.

    Raises:
        Unreachable: neither environment nor cluster says how.
    """
    if any(os.environ.get(name) for name in _OWN):
        yield f"by this environment ({os.environ.get('AWS_ENDPOINT_URL') or 'AWS'})"
        return
    settings = _as_pods_do(cluster, namespace)
    endpoint = settings.get("AWS_ENDPOINT_URL", "")
    host = urlsplit(endpoint).hostname or ""
    with _environment(settings):
        service = re.fullmatch(r"([a-z0-9-]+)(?:\.([a-z0-9-]+))?(?:\.svc(?:\.[a-z0-9.-]+)?)?", host)
        if not service or ("." in host and ".svc" not in f"{host}." and host.count(".") != 1) or _has_address(host):
            yield f"as the pods do ({endpoint or 'AWS'})"
            return
        port = urlsplit(endpoint).port or (443 if endpoint.startswith("https") else 80)
        place = service[2] or namespace
        with (
            _forwarded(service[1], place, port, context) as local,
            _environment({"AWS_ENDPOINT_URL": f"{urlsplit(endpoint).scheme}://127.0.0.1:{local}"}),
        ):
            yield f"by port-forward to service {service[1]} in {place}"


def require_writable(prefix: str) -> None:
    """Write, read, list and delete one object below `prefix`.

    Raises:
        Unreachable: naming what the store refused.
    """
    place = storage.join(prefix, "probe")
    doing = "write"
    try:
        storage.write_text(place, "probe")
        doing = "read"
        storage.read_text(place)
        doing = "list"
        if [file.path for file in storage.list_files(prefix)] != ["probe"]:
            raise StorageError(f"{prefix} is not empty, or does not list what was written")
        doing = "delete"
        storage.delete(place)
    except StorageError as error:
        raise Unreachable(f"no right, or no way, to {doing} below {prefix}: {error}") from error


def _has_address(host: str) -> bool:
    """Whether this machine finds it by itself, as a notebook inside the cluster does."""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def _as_pods_do(cluster: Reader | None, namespace: str) -> dict[str, str]:
    hint = (
        "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL to reach the bucket from here; a store "
        f"inside the cluster: kubectl -n {namespace} port-forward service/STORE 9000:9000"
    )
    if cluster is None:
        raise Unreachable(f"no kubeconfig to learn of the store from; {hint}")
    found: dict[str, str] = {}
    try:
        config = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/{CONFIG}") or {}
        secret = cluster.get(f"/api/v1/namespaces/{namespace}/secrets/{SECRET}") or {}
        launcher = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/{LAUNCHER}") or {}
    except NotAsked as error:
        raise Unreachable(f"{error}; {hint}") from error
    found.update({name: str(value) for name, value in (config.get("data") or {}).items() if name.startswith("AWS_")})
    for key in _KEYS:
        if value := (secret.get("data") or {}).get(key):
            found[key] = base64.b64decode(value).decode().strip()
    if not all(found.get(key) for key in _KEYS):
        raise Unreachable(f"Secret {SECRET!r} in namespace {namespace} has no keys; {hint}")
    if "AWS_ENDPOINT_URL" not in found and (endpoint := _launcher_endpoint(launcher)):
        found["AWS_ENDPOINT_URL"] = endpoint
    return found


def _launcher_endpoint(launcher: dict[str, object]) -> str:
    """Endpoint URL of the launcher's S3 provider; empty when it is AWS's or not said."""
    data = launcher.get("data")
    text = data.get("providers", "") if isinstance(data, dict) else ""
    try:
        provider = (yaml.safe_load(text) or {}).get("s3", {}).get("default", {})
    except (yaml.YAMLError, AttributeError):
        return ""
    endpoint = str(provider.get("endpoint", ""))
    if not endpoint or endpoint.endswith("amazonaws.com"):
        return ""
    return endpoint if "://" in endpoint else f"{'http' if provider.get('disableSSL') else 'https'}://{endpoint}"


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    clients.forget_client()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        clients.forget_client()


@contextmanager
def _forwarded(service: str, namespace: str, port: int, context: str | None) -> Iterator[int]:
    """A local port that leads to a service, as long as the block runs."""
    command = ["kubectl", *(["--context", context] if context else []), "-n", namespace]
    command += ["port-forward", f"service/{service}", f":{port}", "--address", "127.0.0.1"]
    if not shutil.which("kubectl"):
        raise Unreachable(f"the store is inside the cluster and there is no kubectl here; needed: {' '.join(command)}")
    forward = _Forward(command, port)
    thread = threading.Thread(target=forward.run, daemon=True)
    thread.start()
    try:
        if not forward.ready.wait(_FORWARD_S) or not forward.local:
            raise Unreachable(f"{' '.join(command)}: {' '.join(forward.said)[-300:] or 'no answer'}")
        yield forward.local
    finally:
        forward.stop()
        thread.join(timeout=15)


class _Forward:
    """`kubectl port-forward`, started again at the same local port whenever it ends: it does so with the pod behind it,
    and now and then with a connection."""

    def __init__(self, command: list[str], port: int) -> None:
        self.command, self.port = command, port
        self.local = 0
        self.said: list[str] = []
        self.ready = threading.Event()  # it forwards, or has ended without ever doing so
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Keep it running until `stop`."""
        while not self._stopped.is_set():
            with self._lock:
                if self._stopped.is_set():
                    return
                place = f"{self.local or ''}:{self.port}"
                words = [place if word == f":{self.port}" else word for word in self.command]
                self._process = process = subprocess.Popen(
                    words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
            assert process.stdout is not None
            for line in process.stdout:  # read to the end: a full pipe would stop the forwarding
                self.said = [*self.said[-20:], line.strip()]
                if match := re.search(r"Forwarding from 127\.0\.0\.1:(\d+)", line):
                    self.local = int(match[1])
                    self.ready.set()
            process.wait()
            self.ready.set()
            if not self.local:
                return
            self._stopped.wait(_AGAIN_S)

    def stop(self) -> None:
        """End it."""
        with self._lock:
            self._stopped.set()
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
