"""`/metrics` over HTTP for Prometheus: on one address, for few connections at once, each of bounded length."""

from __future__ import annotations

import threading
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import make_wsgi_app

MOST_CONNECTIONS = 8
LONGEST_S = 10.0


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a connection; beyond `MOST_CONNECTIONS` a new one is closed at once."""

    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(*arguments, **named)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        request.settimeout(LONGEST_S)  # a client that sends nothing does not keep its place
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nobody's news."""


class _Quiet(WSGIRequestHandler):
    timeout = LONGEST_S

    def log_message(self, format: str, *arguments: Any) -> None:
        """Scrapes are not logged."""


def start(host: str, port: int, registry: CollectorRegistry) -> tuple[WSGIServer, threading.Thread]:
    """Serve `registry` until the server is shut down; port 0 takes any free one.

    Raises:
        OSError: the address cannot be had.
    """
    server = make_server(host, port, make_wsgi_app(registry), server_class=_Server, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="llava-metrics", daemon=True)
    thread.start()
    return server, thread
