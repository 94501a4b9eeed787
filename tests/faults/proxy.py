"""A proxy in front of a real S3 server that breaks chosen requests: by method, key and number."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote, urlparse

from tests.s3_server import S3Server

Behaviour = Literal[
    "reset", "truncate", "drip", "flip", "busy", "lost answer", "outage", "kill inside put", "kill after put"
]
DRIP_S = 30.0


@dataclass
class Rule:
    """One thing that goes wrong.

    Attributes:
        behaviour: what is done to the request.
        method, key: of the requests meant; `key` is a pattern searched for in the object's key.
        skip: so many of them pass first.
        times: so many are broken then.
        seconds: of an outage.
    """

    behaviour: Behaviour
    method: str
    key: str = "."
    skip: int = 0
    times: int = 1
    seconds: float = 0.0
    seen: int = 0
    fired: int = 0

    def due(self, method: str, key: str) -> bool:
        """Whether this request is one of them."""
        if method != self.method or not re.search(self.key, key):
            return False
        self.seen += 1
        if self.seen <= self.skip or self.fired >= self.times:
            return False
        self.fired += 1
        return True


@dataclass
class Faults:
    """The rules in force."""

    rules: list[Rule] = field(default_factory=list)
    kill: Callable[[], None] = lambda: None
    away_until: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, method: str, key: str) -> Rule | None:
        with self.lock:
            return next((rule for rule in self.rules if rule.due(method, key)), None)


@contextmanager
def faulting(server: S3Server) -> Iterator[tuple[S3Server, Faults]]:
    """`server` as clients of the proxy see it, and what to break."""
    faults = Faults()
    behind = urlparse(server.endpoint)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            if time.monotonic() < faults.away_until:
                self.cut()
                return
            key = unquote(urlparse(self.path).path).removeprefix(f"/{server.bucket}").lstrip("/")
            rule = faults.of(self.command, key)
            how = rule.behaviour if rule else ""
            length = int(self.headers.get("Content-Length") or 0)
            if how == "kill inside put":
                self.rfile.read(length // 2)
                faults.kill()
                self.cut()
                return
            if how == "outage" and rule:
                faults.away_until = time.monotonic() + rule.seconds
                self.cut()
                return
            body = self.rfile.read(length)
            if how == "reset":
                self.cut()
                return
            if how == "busy":
                self.answer(503, b"<Error><Code>SlowDown</Code><Message>slow down</Message></Error>", {})
                return
            status, headers, data = self.upstream(body)
            if how in ("lost answer", "kill after put"):
                if how == "kill after put":
                    faults.kill()
                self.cut()
                return
            if how == "flip" and data:
                data = data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 8]) + data[len(data) // 2 + 1 :]
            self.answer(status, data, headers, how)

        def upstream(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(behind.hostname or "", behind.port, timeout=60)
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in ("connection", "content-length"):
                        connection.putheader(name, value)
                if body or self.command in ("PUT", "POST"):
                    connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body or None)
                reply = connection.getresponse()
                return reply.status, dict(reply.getheaders()), reply.read()
            finally:
                connection.close()

        def answer(self, status: int, data: bytes, headers: dict[str, str], how: str = "") -> None:
            self.send_response_only(status)
            given = {name.lower(): value for name, value in headers.items()}
            for name, value in given.items():
                if name not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            length = given.get("content-length", "0") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command == "HEAD":
                return
            if how == "truncate":
                self.wfile.write(data[: len(data) // 2])
                self.cut()
                return
            if how == "drip":
                end = time.monotonic() + DRIP_S
                for byte in data:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.1)
                    if time.monotonic() > end:
                        self.cut()
                        return
                return
            self.wfile.write(data)

        def cut(self) -> None:
            """End the connection with a reset."""
            self.close_connection = True
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

        def finish(self) -> None:
            with suppress(OSError, ValueError):  # the connection was cut
                super().finish()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that hung up

    proxy = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield replace(server, endpoint=f"http://127.0.0.1:{proxy.server_address[1]}"), faults
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
