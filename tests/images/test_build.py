"""The Docker commands that `tools.images build` gives, seen by a client that writes them down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

ROOT = Path(__file__).parents[2]
# Answers as Docker's client would; nothing is here yet, and what is pushed is not looked at.
CLIENT = """\
#!/usr/bin/env python3
import json, os, sys
arguments = sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([os.environ.get("BUILDX_BUILDER", ""), *arguments]) + "\\n")
if arguments[0] == "buildx" and "DRIVER" not in os.environ:
    sys.exit("docker: 'buildx' is not a docker command")
if arguments[:2] == ["buildx", "inspect"]:
    print("Name:   mine\\nDriver: " + os.environ["DRIVER"])
if arguments[0] == "info":
    print(os.environ.get("STORE", '[["Backing Filesystem","extfs"]]'))
if arguments[:2] == ["image", "inspect"]:
    sys.exit("Error: No such image: " + arguments[-1])
"""


class EmptyRegistry(BaseHTTPRequestHandler):
    """Has no tag."""

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


def build(checkout: Path, tmp_path: Path, *options: str, **variables: str) -> tuple[str, list[str], str]:
    """Run `tools.images build light`; the builder's environment, the build command, and what was said."""
    client = tmp_path / "client"
    client.write_text(CLIENT)
    client.chmod(0o755)
    calls = tmp_path / "calls"
    environment = {name: value for name, value in os.environ.items() if name not in ("BUILDX_BUILDER", "DRIVER")}
    answer = subprocess.run(
        [sys.executable, "-m", "tools.images", "--root", str(checkout), "build", "light", *options],
        cwd=ROOT,
        env={**environment, "DOCKER": str(client), "CALLS": str(calls), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["built"] == ["light"]
    commands = [json.loads(line) for line in calls.read_text().splitlines()]
    builder, *command = next(command for command in commands if "--file" in command)
    return builder, command, answer.stderr


@pytest.fixture
def push() -> Iterator[list[str]]:
    """Options that push to a registry which holds nothing."""
    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyRegistry) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield ["--push", "--registry", f"127.0.0.1:{server.server_address[1]}/team"]
        server.shutdown()
        thread.join()


ATTESTED = ["--push", "--sbom=true", "--provenance=mode=max"]


@pytest.mark.slow
def test_a_push_carries_sbom_and_provenance(checkout: Path, tmp_path: Path, push: list[str]) -> None:
    builder, command, said = build(checkout, tmp_path, *push, DRIVER="docker-container")
    assert command[:5] == ["buildx", "build", *ATTESTED] and builder == ""
    assert "without SBOM" not in said


def test_the_workflow_insists_on_them(checkout: Path, tmp_path: Path, push: list[str]) -> None:
    _, command, _ = build(checkout, tmp_path, *push, "--builder", "buildx", DRIVER="docker")
    assert command[:5] == ["buildx", "build", *ATTESTED]


@pytest.mark.slow
def test_the_engine_can_attach_them_with_containerds_store(checkout: Path, tmp_path: Path, push: list[str]) -> None:
    store = '[["driver-type","io.containerd.snapshotter.v1"]]'
    _, command, _ = build(checkout, tmp_path, *push, DRIVER="docker", STORE=store)
    assert command[:5] == ["buildx", "build", *ATTESTED]


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{}, {"DRIVER": "docker"}])
def test_a_builder_that_cannot_is_said(
    variables: dict[str, str], checkout: Path, tmp_path: Path, push: list[str]
) -> None:
    builder, command, said = build(checkout, tmp_path, *push, **variables)
    assert command[0] == "build" and builder == "default"
    assert "without SBOM and provenance" in said


@pytest.mark.slow
def test_a_local_build_is_loaded_and_tagged(checkout: Path, tmp_path: Path) -> None:
    options = ("--tag", "dev", "--docker-arg=--pull")
    _, command, _ = build(checkout, tmp_path, *options, DRIVER="docker", LLAVA_DOCKER_ARGS="--network=host")
    assert command[:3] == ["buildx", "build", "--load"]
    assert "demo-light:dev" in command and command[-3:] == ["--network=host", "--pull", "."]
    assert command[command.index("--build-arg") + 1] == "BASE_IMAGE=debian:12"
    assert command[command.index("--label") + 1] == "io.llava.stages=expand"
