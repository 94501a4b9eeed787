"""What each answer of a store means: a server that says exactly what a test wants it to say."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llava import storage
from llava.errors import StorageError
from llava.storage import clients
from tests.s3_server import KEY, SECRET, S3Server

pytestmark = pytest.mark.slow

WHOLE = bytes(range(256)) * 4


class Answers(BaseHTTPRequestHandler):
    """GET and HEAD of any object: the statuses of `script` first, then the object; ranges are not honoured."""

    protocol_version = "HTTP/1.1"
    script: list[int]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.command)
        status = self.script.pop(0) if self.script else 200
        body = WHOLE if status == 200 else b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Thu, 26 Nov 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None: ...


@contextmanager
def answering(script: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    handler = type("Scripted", (Answers,), {"script": script, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "LLAVA_STORAGE_DEADLINE_S": "20",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    clients.forget_client()
    try:
        yield handler.asked  # type: ignore[attr-defined]
    finally:
        clients.forget_client()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("engine", ["", "boto3"])
@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_store_that_is_busy_is_asked_again(status: int, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_STORAGE_ENGINE", engine)
    with answering([status] * 4, monkeypatch) as asked:  # more than any client tries by itself
        assert storage.read_bytes("s3://bucket/key") == WHOLE
        assert len(asked) == 5


@pytest.mark.parametrize("status", [400, 403])
def test_a_refusal_is_said_and_not_repeated_for_long(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering([status] * 50, monkeypatch) as asked:
        with pytest.raises(StorageError, match=f"s3://bucket/key: the store refused with {status}"):
            storage.read_bytes("s3://bucket/key")
        assert len(asked) <= 3


@pytest.mark.parametrize("engine", ["", "boto3"])
def test_a_store_that_ignores_ranges_gives_the_range_all_the_same(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_STORAGE_ENGINE", engine)
    with answering([], monkeypatch):
        assert storage.read_range("s3://bucket/key", 300, 7) == WHOLE[300:307]
        assert storage.read_range("s3://bucket/key", 1000, 24) == WHOLE[1000:]


def test_markers_of_folders_are_no_files(moto_s3: S3Server) -> None:
    """Consoles and some tools put an empty object named like the folder."""
    storage.write_bytes(f"{moto_s3.uri}/images/a.jpg", b"a")
    for marker in ("images/", "images/sub/"):
        clients.client_of(os.getpid()).put_object(Bucket=moto_s3.bucket, Key=marker, Body=b"")
    assert [file.path for file in storage.list_files(f"{moto_s3.uri}/images")] == ["a.jpg"]
