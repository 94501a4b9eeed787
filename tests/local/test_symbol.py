"""What local runs rely on in kfp. When one of these fails after an upgrade, read kfp's changes before anything else."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import kfp
import pytest
from kfp import local
from kfp.local import docker_task_handler, subprocess_task_handler, task_dispatcher, task_handler_interface

from llava.local.symbol import docker_handler, process_handler
from tests.local.tiny_pipeline import tiny


def test_kfp_is_the_release_this_was_written_for() -> None:
    assert kfp.__version__ == "2.17.0"


def test_the_handlers_interface() -> None:
    expected = ["self", "image", "full_command", "pipeline_root", "runner", "env_vars"]
    for handler in (
        task_handler_interface.ITaskHandler,
        subprocess_task_handler.SubprocessTaskHandler,
        docker_task_handler.DockerTaskHandler,
    ):
        assert list(inspect.signature(handler.__init__).parameters) == expected
    assert task_dispatcher.subprocess_task_handler is subprocess_task_handler
    assert task_dispatcher.docker_task_handler is docker_task_handler


def test_kfp_alone_still_refuses_container_components(tmp_path: Path) -> None:
    """The day this fails, the replacement can go."""
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path))
    with pytest.raises(RuntimeError, match="only supports running Lightweight Python Components"):
        tiny(log=str(tmp_path / "log"))


def test_the_dispatcher_takes_the_handler_of_the_moment(tmp_path: Path) -> None:
    """Looked up by name at each task, and put back afterwards."""
    seen: list[dict[str, Any]] = []

    class Recorder(task_handler_interface.ITaskHandler):
        def __init__(self, **given: Any) -> None:
            seen.append(given)

        def run(self) -> Any:
            raise KeyboardInterrupt

    original = subprocess_task_handler.SubprocessTaskHandler
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path))
    with pytest.raises(KeyboardInterrupt), process_handler(Recorder):
        tiny(log=str(tmp_path / "log"))
    assert subprocess_task_handler.SubprocessTaskHandler is original
    (given,) = seen
    assert given["image"] == "tiny:1"
    assert given["full_command"][:4] == ["python", "-m", "tests.local.tiny_stages", "make"]
    assert given["full_command"][4] == "--executor-input" and given["full_command"][5].startswith('{"inputs"')


def test_the_docker_handler_is_put_back() -> None:
    class Other(docker_task_handler.DockerTaskHandler):
        pass

    original = docker_task_handler.DockerTaskHandler
    with docker_handler(Other):
        assert docker_task_handler.DockerTaskHandler is Other
    assert docker_task_handler.DockerTaskHandler is original
