"""Servers that misbehave, each a real socket: whatever they do, the call ends, with our error and without secrets."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llava import storage
from llava.errors import StorageError, StoreAwayError
from llava.storage import clients, integrity, s3
from tests.s3_server import KEY, SECRET, S3Server, free_port

pytestmark = pytest.mark.slow

DEADLINE_S = 1.0
CONTENT = bytes(range(256)) * 64
Behaviour = Callable[[socket.socket, str], None]
"""Given the connection and the request's method; what it does is the answer."""


def head(length: int, tag: str = '"x"', status: str = "200 OK", more: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: {tag}\r\n{more}"
        "Last-Modified: Thu, 26 Nov 2026 00:00:00 GMT\r\nConnection: close\r\n\r\n"
    ).encode()


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[tuple[str, list[str]]]:
    """(endpoint, methods asked so far)."""
    asked: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    closing = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(20)
            request = b""
            try:
                while b"\r\n\r\n" not in request:
                    if not (piece := connection.recv(65536)):
                        return
                    request += piece
                asked.append(request.split(b" ", 1)[0].decode())
                behaviour(connection, asked[-1])
            except OSError:
                pass  # the client has given up

    def accept() -> None:
        while not closing.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        closing.set()
        listener.close()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Points the environment at an endpoint."""

    def point(endpoint: str) -> None:
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "LLAVA_STORAGE_DEADLINE_S": str(DEADLINE_S),
        }.items():
            monkeypatch.setenv(name, value)
        clients.forget_client()
        integrity.forget()

    yield point
    clients.forget_client()
    integrity.forget()


def drip_body(connection: socket.socket, method: str) -> None:
    connection.sendall(head(1 << 20))
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)


def drip_head(connection: socket.socket, method: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)


def silent(connection: socket.socket, method: str) -> None:
    time.sleep(30)


def reset(connection: socket.socket, method: str) -> None:
    connection.sendall(head(1 << 20) + bytes(1000))
    time.sleep(0.05)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def short(connection: socket.socket, method: str) -> None:
    connection.sendall(head(1 << 20) + bytes(1000))


def nonsense(connection: socket.socket, method: str) -> None:
    connection.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")


CALLS: dict[str, Callable[[str], object]] = {
    "read": storage.read_bytes,
    "range": lambda uri: storage.read_range(uri, 0, 1 << 16),
    "start": lambda uri: storage.read_start(uri, 1 << 16),
    "size": storage.size,
    "write": lambda uri: storage.write_bytes(uri, b"x"),
    "list": lambda uri: list(storage.list_files(uri)),
}


@pytest.mark.parametrize(
    ("behaviour", "call"),
    [
        (drip_body, "read"), (drip_body, "range"), (drip_body, "start"), (drip_body, "list"),
        (drip_head, "read"), (drip_head, "size"), (drip_head, "write"),
        (silent, "read"), (reset, "read"), (reset, "range"), (short, "read"), (short, "list"), (nonsense, "read"),
    ],
)  # fmt: skip
def test_whatever_the_server_does_the_call_ends_with_our_error(
    behaviour: Behaviour, call: str, at: Callable[[str], None]
) -> None:
    with serving(behaviour) as (endpoint, _):
        at(endpoint)
        began = time.monotonic()
        with pytest.raises(StoreAwayError, match="before the deadline"):
            CALLS[call]("s3://bucket/key")
        # Not a timing: without a bound these calls last for ever, or as long as the server likes.
        assert time.monotonic() - began < 20 * DEADLINE_S


@pytest.mark.parametrize("engine", ["", "boto3"])
def test_a_slow_store_that_keeps_sending_is_waited_for(
    engine: str, at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(connection: socket.socket, method: str) -> None:
        body = bytes(256 << 10)
        connection.sendall(head(len(body)))
        for start in range(0, len(body), 16 << 10):
            connection.sendall(body[start : start + (16 << 10)])
            time.sleep(4.0 / 16)

    monkeypatch.setenv("LLAVA_STORAGE_ENGINE", engine)
    with serving(slowly) as (endpoint, _):
        at(endpoint)
        monkeypatch.setenv("LLAVA_STORAGE_DEADLINE_S", "2.5")  # the whole takes 4 s
        clients.forget_client()
        import obstore  # noqa: F401  (importing and making clients is no time of the store's)

        clients.client_of(os.getpid())
        clients.bulk_of(os.getpid())
        assert len(storage.read_bytes("s3://bucket/key")) == 256 << 10


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_without_end_are_an_error_soon(
    status: int, at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def redirect(connection: socket.socket, method: str) -> None:
        to = f"Location: {endpoint}/bucket/key\r\nx-amz-bucket-region: eu-west-1\r\n"
        body = b"" if method == "HEAD" else b"<Error><Code>PermanentRedirect</Code><Message>there</Message></Error>"
        connection.sendall(head(len(body), status=f"{status} Moved", more=to) + body)

    with serving(redirect) as (endpoint, asked):
        at(endpoint)
        monkeypatch.setenv("LLAVA_STORAGE_DEADLINE_S", "30")
        for call in ("read", "size", "list"):
            with pytest.raises(StorageError, match=r"circles|refused|redirect"):
                CALLS[call]("s3://bucket/key")
        assert len(asked) < 100


@pytest.mark.parametrize("engine", ["", "boto3"])
def test_a_byte_that_flips_on_its_way_is_noticed(
    engine: str, at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first for good, then only now and then: the next try has it right."""
    monkeypatch.setenv("LLAVA_STORAGE_ENGINE", engine)
    flips = 1000

    def flipping(connection: socket.socket, method: str) -> None:
        nonlocal flips
        body = bytearray(CONTENT)
        if flips > 0:
            body[100 + flips] ^= 1
            flips -= 1
        connection.sendall(head(len(body), f'"{hashlib.md5(CONTENT).hexdigest()}"') + body)

    with serving(flipping) as (endpoint, _):
        at(endpoint)
        with pytest.raises(StorageError, match=r"s3://bucket/key: damaged: .*MD5"):
            storage.read_bytes("s3://bucket/key")
        flips = 2
        assert storage.read_bytes("s3://bucket/key") == CONTENT


def test_the_same_wrong_byte_in_every_read_is_noticed_once_tags_are_known(at: Callable[[str], None]) -> None:
    good = True

    def answer(connection: socket.socket, method: str) -> None:
        body = CONTENT if good else CONTENT[:-1] + b"?"
        connection.sendall(head(len(body), f'"{hashlib.md5(CONTENT).hexdigest()}"') + body)

    with serving(answer) as (endpoint, _):
        at(endpoint)
        assert storage.read_bytes("s3://bucket/key") == CONTENT
        good = False
        with pytest.raises(StorageError, match="damaged"):
            storage.read_bytes("s3://bucket/key")


def test_a_body_cut_short_that_says_it_is_whole_is_noticed(at: Callable[[str], None]) -> None:
    cut = False

    def answer(connection: socket.socket, method: str) -> None:
        body = CONTENT[:100] if cut else CONTENT
        connection.sendall(head(len(body), f'"{hashlib.md5(CONTENT).hexdigest()}"') + body)

    with serving(answer) as (endpoint, _):
        at(endpoint)
        assert storage.read_bytes("s3://bucket/key") == CONTENT
        cut = True
        with pytest.raises(StorageError, match="damaged"):
            storage.read_bytes("s3://bucket/key")


def test_tags_that_only_look_like_sums_stop_nobody(at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(connection: socket.socket, method: str) -> None:
        connection.sendall(head(len(CONTENT), f'"{"ab" * 16}"') + CONTENT)

    with serving(answer) as (endpoint, asked):
        at(endpoint)
        monkeypatch.setenv("LLAVA_STORAGE_DEADLINE_S", "60")  # a busy machine's slow answer would be asked for again
        assert storage.read_bytes("s3://bucket/key") == CONTENT
        learnt = len(asked)
        assert storage.read_bytes("s3://bucket/key") == CONTENT
        assert len(asked) == learnt + 1  # what was learnt costs nothing any more


def test_a_checksum_of_the_store_is_compared(at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_STORAGE_ENGINE", "boto3")

    def answer(connection: socket.socket, method: str) -> None:
        more = "x-amz-checksum-crc32: AAAAAA==\r\nx-amz-checksum-type: FULL_OBJECT\r\n"
        connection.sendall(head(len(CONTENT), more=more) + CONTENT)

    with serving(answer) as (endpoint, _):
        at(endpoint)
        monkeypatch.setenv("LLAVA_STORAGE_DEADLINE_S", "6")  # a busy machine answers slowly
        with pytest.raises(StorageError, match="damaged"):
            storage.read_bytes("s3://bucket/key")


@pytest.mark.parametrize("engine", ["", "boto3"])
@pytest.mark.parametrize(
    "address",
    [
        "http://name:hunter2-secret@127.0.0.1:{port}",
        "http://127.0.0.1:{port}/?api_key=hunter2-secret",
        "hunter2-secret://x",
    ],
)
def test_no_message_shows_a_password_or_key_of_the_endpoint(
    address: str, engine: str, at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAVA_STORAGE_ENGINE", engine)
    at(address.format(port=free_port()))
    for call in ("read", "list", "write"):
        with pytest.raises(StorageError) as caught:
            CALLS[call]("s3://bucket/key")
        if "://x" not in address:
            assert "hunter2" not in str(caught.value)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("known", [False, True])
def test_a_fetched_file_that_came_damaged_is_fetched_again(known: bool, tmp_path: Path, moto_s3: S3Server) -> None:
    """Also where nothing is known of the bucket's tags yet: then the wrong bytes would be kept."""
    storage.write_bytes(f"{moto_s3.uri}/folder/model.bin", CONTENT * 100)
    integrity.forget()
    if known:
        storage.download(f"{moto_s3.uri}/folder", tmp_path / "before")
    real, flips = s3.read_range, 1

    def flipping(uri: str, start: int, length: int, tag: str | None = None) -> bytes:
        nonlocal flips
        data = bytearray(real(uri, start, length, tag))
        data[7] ^= 4 if flips > 0 else 0
        flips -= 1
        return bytes(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3, "read_range", flipping)
        storage.download(f"{moto_s3.uri}/folder", tmp_path / "folder")
    assert (tmp_path / "folder/model.bin").read_bytes() == CONTENT * 100


def test_a_fetched_file_is_compared_with_its_tag(at: Callable[[str], None], tmp_path: Path, moto_s3: S3Server) -> None:
    """Ranges hide a whole object's sum; the file that they make does not."""
    storage.write_bytes(f"{moto_s3.uri}/model.bin", CONTENT * 100)
    storage.download(f"{moto_s3.uri}/model.bin", tmp_path / "good")
    assert (tmp_path / "good").read_bytes() == CONTENT * 100
    real = s3.read_range

    def flipped(uri: str, start: int, length: int, tag: str | None = None) -> bytes:
        data = bytearray(real(uri, start, length, tag))
        data[7] ^= 4
        return bytes(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3, "read_range", flipped)
        with pytest.raises(StorageError, match=r"model\.bin: damaged"):
            storage.download(f"{moto_s3.uri}/model.bin", tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
