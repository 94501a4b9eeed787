"""Real S3 servers for tests, each a process of its own that the test stops by its pid.

`rclone serve s3` checks signatures and keeps what it acknowledged; it ignores range requests. `moto_server` does ranges
and preconditions as S3 does, but accepts any credentials. Tests take the one that is true in what they test.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

KEY, SECRET = "test-access-key", "test-secret-key"  # of servers that live for one test on loopback


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class S3Server:
    """A running server; `environment` is what a client process needs to reach it."""

    endpoint: str
    bucket: str
    command: list[str]
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}"

    def kill(self) -> None:
        """Stop it at once, as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)

    def start_again(self) -> None:
        """Start a killed server on the same port and data."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for(self)


def _wait_for(server: S3Server) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 1}, connect_timeout=1, read_timeout=5),
    )
    deadline = time.monotonic() + 60
    while True:
        if server.process.poll() is not None:
            raise RuntimeError(f"{server.command[0]} ended with {server.process.returncode}")
        try:
            names = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
            if server.bucket not in names:
                client.create_bucket(Bucket=server.bucket)
            return
        except Exception:
            if time.monotonic() > deadline:
                server.kill()
                raise
            time.sleep(0.1)


@contextmanager
def rclone_server(folder: Path, bucket: str = "llava-test") -> Iterator[S3Server]:
    """`rclone serve s3` over `folder`."""
    (folder / bucket).mkdir(parents=True, exist_ok=True)
    port = free_port()
    rclone = str(Path(sys.executable).parent / "rclone")
    command = [rclone, "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    # Folder listings stay cached as rclone has it by default: with a cache time of 0 its handlers wait for each other
    # for ever (seen with 1.75). Nothing but the server may write below `folder` while it runs.
    command += ["--vfs-cache-mode", "off", "--config", os.devnull]
    yield from _serve(command, port, bucket)


@contextmanager
def moto_server(bucket: str = "llava-test") -> Iterator[S3Server]:
    """`moto_server`, in memory."""
    port = free_port()
    yield from _serve(
        [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)], port, bucket
    )


def _serve(command: list[str], port: int, bucket: str) -> Iterator[S3Server]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = S3Server(f"http://127.0.0.1:{port}", bucket, command, process)
    try:
        _wait_for(server)
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture
def rclone_s3(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A signature-checking store; the AWS environment of the test points at it."""
    with rclone_server(tmp_path_factory.mktemp("rclone")) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield from _with_fresh_client(server)


@pytest.fixture
def moto_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A store that honours ranges; the AWS environment of the test points at it."""
    with moto_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield from _with_fresh_client(server)


def _with_fresh_client(server: S3Server) -> Iterator[S3Server]:
    from llava.storage import clients

    clients.forget_client()
    yield server
    clients.forget_client()
