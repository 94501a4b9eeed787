"""A real HTTP server that speaks as much of OpenAI's chat completions as an evaluation needs, with faults on demand."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

Say = Callable[[str, list[Image.Image]], "str | tuple[int, str]"]


@dataclass
class ChatServer:
    """What it was asked, and how many answers it gives before it only fails.

    Attributes:
        say: text and images of the user's message to an answer, or to (status, body).
        bodies: every request it has answered, in the order of arrival.
        most: answers before every further request gets status 503.
    """

    say: Say
    models: list[str] = field(default_factory=lambda: ["tuned"])
    most: int | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def texts(self) -> list[str]:
        """The texts it was asked."""
        return [body["messages"][0]["content"][-1]["text"] for body in self.bodies]


@contextmanager
def serving(server: ChatServer) -> Iterator[ChatServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def reply(self, status: int, body: Any) -> None:
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                self.reply(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in server.models]})
            else:
                self.reply(404, "not here")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/chat/completions":
                self.reply(404, "not here")
                return
            with server.lock:
                gone = server.most is not None and len(server.bodies) >= server.most
                if not gone:
                    server.bodies.append(body)
                    server.keys.append(self.headers.get("Authorization", ""))
            if gone:
                self.reply(503, "going down")
                return
            content = body["messages"][0]["content"]
            images: list[Image.Image] = [
                Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].split(",", 1)[1])))
                for part in content
                if part["type"] == "image_url"
            ]
            answer = server.say(content[-1]["text"], images)
            if isinstance(answer, tuple):
                self.reply(*answer)
                return
            choice = {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
            self.reply(200, {"id": "x", "object": "chat.completion", "model": body["model"], "choices": [choice]})

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
