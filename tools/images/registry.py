"""Asking a container registry one question: is this tag there, and under which digest? (OCI distribution API)"""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import httpx

_MANIFESTS = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)
_DOCKER_HUB = "docker.io"


class RegistryError(RuntimeError):
    """The registry refused or did not answer as the OCI distribution API says."""


@dataclass(frozen=True)
class Repository:
    """`host[:port]/path`, split where Docker splits it."""

    host: str
    path: str

    @classmethod
    def parse(cls, name: str) -> Repository:
        """Raises ValueError for a name without a registry host: nothing could be asked about it."""
        first, _, rest = name.partition("/")
        if not rest or not ("." in first or ":" in first or first == "localhost"):
            raise ValueError(
                f"registry: found {name!r}; expected HOST/PATH, such as registry.example.com/team/llava-light"
            )
        return cls(first, rest)

    @property
    def base_url(self) -> str:
        """A registry on this machine speaks plain HTTP, as Docker assumes too."""
        local = self.host.partition(":")[0] in ("localhost", "127.0.0.1")
        host = f"registry-1.{_DOCKER_HUB}" if self.host == _DOCKER_HUB else self.host
        return f"{'http' if local else 'https'}://{host}/v2/{self.path}"


def find_digest(name: str, tag: str, *, timeout_s: float = 30.0) -> str | None:
    """Digest of `name:tag`, or None where the registry has no such tag.

    Credentials are those of `docker login` ($DOCKER_CONFIG/config.json), or REGISTRY_USERNAME and REGISTRY_PASSWORD.

    Raises:
        ValueError: `name` has no registry host.
        RegistryError: forbidden, or no usable answer.
    """
    repository = Repository.parse(name)
    url = f"{repository.base_url}/manifests/{tag}"
    transport = httpx.HTTPTransport(retries=3)
    with httpx.Client(timeout=timeout_s, transport=transport, follow_redirects=True) as client:
        try:
            reply = client.head(url, headers={"Accept": _MANIFESTS})
            if reply.status_code == 401:
                headers = {"Accept": _MANIFESTS, "Authorization": _authorization(client, repository, reply)}
                reply = client.head(url, headers=headers)
        except httpx.HTTPError as error:
            raise RegistryError(f"{name}:{tag}: {type(error).__name__}: {error}") from error
    if reply.status_code == 404:
        return None
    digest = str(reply.headers.get("docker-content-digest", ""))
    if reply.status_code != 200 or not digest.startswith("sha256:"):
        raise RegistryError(
            f"{name}:{tag}: the registry answered {reply.status_code} with digest {digest!r}; is `docker login` done?"
        )
    return digest


def _authorization(client: httpx.Client, repository: Repository, refused: httpx.Response) -> str:
    challenge = refused.headers.get("www-authenticate", "")
    credentials = _credentials(repository.host)
    if challenge.lower().startswith("basic"):
        if credentials is None:
            raise RegistryError(f"{repository.host}: wants a user and a password; run `docker login {repository.host}`")
        return "Basic " + base64.b64encode(":".join(credentials).encode()).decode()
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if "realm" not in fields:
        raise RegistryError(f"{repository.host}: answered 401 without saying how to authenticate ({challenge!r})")
    scope = fields.get("scope", f"repository:{repository.path}:pull")
    reply = client.get(fields["realm"], params={"service": fields.get("service", ""), "scope": scope}, auth=credentials)
    if reply.status_code != 200:
        raise RegistryError(
            f"{repository.host}: no token for {scope} (status {reply.status_code}); `docker login {repository.host}`"
        )
    body = reply.json()
    return f"Bearer {body.get('token') or body['access_token']}"


def _credentials(host: str) -> tuple[str, str] | None:
    user, password = os.environ.get("REGISTRY_USERNAME"), os.environ.get("REGISTRY_PASSWORD")
    if user and password:
        return user, password
    config = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "config.json"
    if not config.is_file():
        return None
    entry = json.loads(config.read_text()).get("auths", {}).get(host, {}).get("auth")
    if not entry:
        return None
    user, _, password = base64.b64decode(entry).decode().partition(":")
    return user, password
