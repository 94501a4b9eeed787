"""Replies of hostile servers: packed bombs and bodies without end take bounded memory, and are errors."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpx
import pytest
from PIL import Image

from llava import http_replies
from llava.evaluation.engines.base import Asked
from llava.evaluation.engines.endpoint import Endpoint, EndpointGone
from llava.expansion.teachers.batch_interfaces import _Http
from llava.expansion.teachers.failures import TeacherFailure
from llava.retrying import Pauses

BOMB = gzip.compress(b" " * (64 << 20))  # 64 kB


class _Hostile(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.asked.append(self.headers.get("Accept-Encoding", ""))
        if "models" in self.path and "bomb" not in self.path:
            self.tell(b'{"data": [{"id": "m"}]}')
        elif "bomb" in self.path:
            self.tell(BOMB, {"Content-Encoding": "gzip"})
        elif "endless" in self.path:
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * (1 << 20))
            except OSError:
                return
        else:
            self.tell(b'{"choices": [{"message": {"content": "yes"}}]}')

    do_POST = do_GET

    def tell(self, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    _Hostile.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_honest_reply_is_as_without(url: str) -> None:
    with httpx.Client() as client:
        reply = http_replies.ask(client, "POST", f"{url}/chat", json={"a": 1}, headers={"X-Own": "1"})
    assert reply.json()["choices"][0]["message"]["content"] == "yes" and reply.status_code == 200
    assert _Hostile.asked == ["identity"]


@pytest.mark.parametrize(("path", "said"), [("bomb", "packed"), ("endless", "longer than 16,777,216 bytes")])
def test_a_reply_that_is_packed_or_has_no_end_is_an_error(path: str, said: str, url: str) -> None:
    with httpx.Client() as client, pytest.raises(httpx.HTTPError, match=said):
        http_replies.ask(client, "GET", f"{url}/{path}")


@pytest.mark.parametrize("path", ["bomb", "endless"])
def test_an_endpoint_that_sends_such_replies_is_gone_and_a_batch_fails(path: str, url: str) -> None:
    quick = Pauses(first=0.01, longest=0.02)
    engine = Endpoint(f"{url}", "m", concurrency=1, blank_colour=(0, 0, 0), pauses=quick)
    engine._url = f"{url}/{path}"
    with pytest.raises(EndpointGone, match="is gone"):
        list(engine.answers([Asked("What?", [Image.new("RGB", (2, 2))])], 8))
    with pytest.raises(TeacherFailure, match="connection"):
        _Http(url, {}, 20.0).json("GET", f"/{path}")


def test_a_line_without_end_is_an_error(url: str) -> None:
    with pytest.raises(TeacherFailure, match="connection"):
        list(_Http(url, {}, 20.0).lines("/endless"))
