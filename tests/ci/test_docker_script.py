"""`.ci/docker.sh`: says when it does not run, uses the engine it finds, and ends what it started however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = os.environ.get("DOCKER", "docker")
TOO_MUCH = {"LLAVA_DOCKER_GIB": "1000000"}

with_engine = [
    pytest.mark.docker,
    pytest.mark.skipif("LLAVA_DOCKER_TESTS" not in os.environ, reason="run through .ci/docker.sh"),
]


def script(folder: Path, *command: str, **variables: str) -> subprocess.Popen[str]:
    """Start `.ci/docker.sh COMMAND` with all that it stores below `folder`."""
    environment = {name: value for name, value in os.environ.items() if name != "LLAVA_CI_DOCKER"}
    environment["LLAVA_DOCKER_GIB"] = "1"
    return subprocess.Popen(
        [str(ROOT / ".ci/docker.sh"), *command],
        env={**environment, "TMPDIR": str(folder), **variables},
        stdout=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and output."""
    said, _ = process.communicate(timeout=300)
    return process.returncode, said


def test_left_out_when_asked(tmp_path: Path) -> None:
    code, said = end(script(tmp_path, "false", LLAVA_CI_DOCKER="0"))
    assert code == 0 and "left out, as LLAVA_CI_DOCKER=0 asks" in said


@pytest.mark.parametrize(("asked", "code"), [("", 0), ("1", 1)])
def test_too_little_disk_is_said_and_is_a_failure_only_where_an_engine_was_demanded(
    asked: str, code: int, tmp_path: Path
) -> None:
    found, said = end(script(tmp_path, "false", LLAVA_CI_DOCKER=asked, **TOO_MUCH))
    assert found == code and "NOT RUN" in said and "GiB free, building and running takes 1000000" in said
    assert list(tmp_path.iterdir()) == []


def test_where_torch_for_the_cpu_is_nowhere_it_says_so_before_it_builds(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "uv").write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/asked\necho "no such version" >&2\nexit 1\n')
    (programs / "uv").chmod(0o755)
    place = tmp_path / "place"
    place.mkdir()
    given = {"PATH": f"{programs}:{os.environ['PATH']}", "UV_FIND_LINKS": "", "PIP_FIND_LINKS": "", "EXTRA_WHEELS": ""}
    code, said = end(script(place, "false", **given))
    assert code == 0 and "NOT RUN: torch==2.13.0+cpu is nowhere to be had: no such version" in said
    assert "--torch-backend cpu torch==2.13.0+cpu" in (tmp_path / "asked").read_text()
    assert list(place.iterdir()) == []


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    left = tmp_path / f"llava-docker.{gone}.abcdef"
    (left / "data").mkdir(parents=True)
    with subprocess.Popen(["sh", "-c", "sleep 600; :", f"{left}/registry.yml"], start_new_session=True) as registry:
        (left / "registry.pid").write_text(str(registry.pid))
        _, said = end(script(tmp_path, "false", **TOO_MUCH))
        assert f"removing {left}" in said
        assert registry.wait(timeout=10) == -signal.SIGTERM
        with contextlib.suppress(ProcessLookupError):  # stopped before it had a child
            os.killpg(registry.pid, signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_took_over_an_old_id_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as stranger:
        left = tmp_path / f"llava-docker.{stranger.pid}.abcdef"
        left.mkdir()
        (left / "registry.pid").write_text(str(stranger.pid))
        end(script(tmp_path, "false", **TOO_MUCH))
        assert stranger.poll() is None
        stranger.kill()
    assert list(tmp_path.iterdir()) == []


def docker(*arguments: str) -> str:
    """Run the client; its output."""
    return subprocess.run([DOCKER, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def references() -> set[str]:
    """Names of the engine's images; it lists those of one image in any order."""
    return set(docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").splitlines())


class TestWithAnEngine:
    """The engine that runs these tests is the one that was there before; nothing is built, so little disk will do."""

    pytestmark = with_engine

    def test_an_engine_that_was_there_stays_and_keeps_nothing(self, tmp_path: Path) -> None:
        before = references()
        tag = (DOCKER, "tag", os.environ["BASE_IMAGE"], "llava-light:left-over")
        code, said = end(script(tmp_path, *tag, LLAVA_CI_DOCKER="1"))
        assert code == 0 and "using the engine that answers" in said, said
        assert references() == before
        assert list(tmp_path.iterdir()) == []

    def test_a_failure_is_passed_on(self, tmp_path: Path) -> None:
        code, said = end(script(tmp_path, "sh", "-c", "exit 7"))
        assert code == 7 and "FAILED with exit status 7" in said

    def test_an_interrupted_run_stops_what_it_started(self, tmp_path: Path) -> None:
        process = script(tmp_path, "sh", "-c", 'echo $$ >"$TMPDIR/work"; exec sleep 600')
        deadline = time.monotonic() + 120
        while not (works := [path for path in tmp_path.glob("*/tmp/work") if path.read_text().strip()]):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
        started = [int(works[0].read_text()), int((works[0].parents[1] / "registry.pid").read_text())]
        assert all(Path(f"/proc/{pid}").exists() for pid in started)
        process.send_signal(signal.SIGTERM)
        code, _ = end(process)
        assert code == 128 + signal.SIGTERM
        assert not any(Path(f"/proc/{pid}").exists() for pid in started)
        assert list(tmp_path.iterdir()) == []
        docker("info")
