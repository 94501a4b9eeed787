"""A proxy in front of a real S3 server that counts what passes: requests by method and key, and bytes each way.

It speaks plain HTTP and changes nothing, so signatures hold (the client signs the proxy's own host, which the server is
shown).
"""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

from tests.s3_server import S3Server


@dataclass
class Traffic:
    """What went through since the last `reset`; keys are without the bucket."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        with self.lock:
            for counter in (self.requests, self.read, self.written):
                counter.clear()

    def gets(self, prefix: str = "") -> int:
        """GET requests of objects below `prefix`."""
        return sum(
            n for (method, key), n in self.requests.items() if method == "GET" and key.startswith(prefix) and key
        )

    def bytes_read(self, prefix: str = "") -> int:
        """Bytes of objects below `prefix` that clients were sent."""
        return sum(n for key, n in self.read.items() if key.startswith(prefix) and key)


@contextmanager
def counting(server: S3Server) -> Iterator[tuple[S3Server, Traffic]]:
    """`server` as clients of the proxy see it, and the traffic."""
    traffic = Traffic()
    behind = urlparse(server.endpoint)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            key = unquote(urlparse(self.path).path).removeprefix(f"/{server.bucket}").lstrip("/")
            upstream = http.client.HTTPConnection(behind.hostname or "", behind.port, timeout=60)
            try:
                upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in ("connection", "content-length"):
                        upstream.putheader(name, value)
                if body or self.command in ("PUT", "POST"):
                    upstream.putheader("Content-Length", str(len(body)))
                upstream.endheaders(body or None)
                reply = upstream.getresponse()
                with traffic.lock:
                    traffic.requests[self.command, key] += 1
                    traffic.written[key] += len(body)
                self.send_response_only(reply.status, reply.reason)
                given = reply.getheader("Content-Length")
                data = b"" if self.command == "HEAD" or given else reply.read()
                for name, value in reply.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                self.send_header("Content-Length", given or str(len(data)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                while data or (given and (data := reply.read(1 << 20))):
                    with traffic.lock:  # before the client has it: whoever asks afterwards finds it counted
                        traffic.read[key] += len(data)
                    self.wfile.write(data)
                    data = b""
            except OSError:
                self.close_connection = True
            finally:
                upstream.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that closed a range early

    proxy = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield replace(server, endpoint=f"http://127.0.0.1:{proxy.server_address[1]}"), traffic
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
