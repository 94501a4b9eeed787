"""The registry client against a real HTTP server that asks for a token as hosted registries do."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from tools.images.registry import RegistryError, Repository, find_digest

DIGEST = "sha256:" + "a" * 64
USER = base64.b64encode(b"ann:secret").decode()


class Handler(BaseHTTPRequestHandler):
    """`team/app:there` exists; everything needs a token; a token needs ann's password."""

    def do_HEAD(self) -> None:
        if self.path.endswith("/broken"):
            self._answer(500)
        elif self.headers.get("Authorization") != "Bearer good":
            host = self.headers["Host"]
            scope = "repository:team/app:pull"
            self._answer(
                401, {"WWW-Authenticate": f'Bearer realm="http://{host}/token",service="here",scope="{scope}"'}
            )
        elif self.path == "/v2/team/app/manifests/there" and "image.index.v1" in self.headers["Accept"]:
            self._answer(200, {"Docker-Content-Digest": DIGEST})
        else:
            self._answer(404)

    def do_GET(self) -> None:
        query = parse_qs(urlparse(self.path).query)
        allowed = self.headers.get("Authorization") == f"Basic {USER}" and query["scope"] == [
            "repository:team/app:pull"
        ]
        body = json.dumps({"token": "good"}).encode()
        self._answer(200 if allowed else 403, body=body)

    def _answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def registry() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def logged_in(registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {registry: {"auth": USER}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return registry


def test_a_tag_that_is_there(logged_in: str) -> None:
    assert find_digest(f"{logged_in}/team/app", "there") == DIGEST


def test_a_tag_that_is_not(logged_in: str) -> None:
    assert find_digest(f"{logged_in}/team/app", "absent") is None


def test_credentials_from_the_environment(registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("REGISTRY_USERNAME", "ann")
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    assert find_digest(f"{registry}/team/app", "there") == DIGEST


def test_not_logged_in_is_an_error_not_an_absent_image(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(RegistryError, match="docker login"):
        find_digest(f"{registry}/team/app", "there")


def test_a_broken_registry_is_an_error_not_an_absent_image(logged_in: str) -> None:
    with pytest.raises(RegistryError, match="answered 500"):
        find_digest(f"{logged_in}/team/app", "broken")


@pytest.mark.slow
def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="ConnectError"):
        find_digest("127.0.0.1:9/team/app", "there", timeout_s=5)


@pytest.mark.parametrize("name", ["llava-light", "team/llava-light"])
def test_a_name_without_a_registry(name: str) -> None:
    with pytest.raises(ValueError, match="expected HOST/PATH"):
        Repository.parse(name)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("localhost:5000/a", "http://localhost:5000/v2/a"),
        ("registry.example.com/team/a", "https://registry.example.com/v2/team/a"),
        ("docker.io/team/a", "https://registry-1.docker.io/v2/team/a"),
    ],
)
def test_where_a_registry_answers(name: str, url: str) -> None:
    assert Repository.parse(name).base_url == url
