"""The one symbol of kfp that local runs replace.

kfp runs container components only in Docker, and offers no registry of runners; but its dispatcher looks up the
handler of `SubprocessRunner` by name each time a task starts. Putting our handler there keeps everything else of
kfp.local as it is: order of tasks, loops, conditions, cache. kfp is pinned, and `tests/local/test_symbol.py` fails
when a new release moves or changes what is relied on here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kfp.local import docker_task_handler, subprocess_task_handler
from kfp.local.task_handler_interface import ITaskHandler


@contextmanager
def process_handler(handler: type[ITaskHandler]) -> Iterator[None]:
    """Within the context `kfp.local.SubprocessRunner` runs tasks by `handler`."""
    original = subprocess_task_handler.SubprocessTaskHandler
    subprocess_task_handler.SubprocessTaskHandler = handler
    try:
        yield
    finally:
        subprocess_task_handler.SubprocessTaskHandler = original


@contextmanager
def docker_handler(handler: type[docker_task_handler.DockerTaskHandler]) -> Iterator[None]:
    """Within the context `kfp.local.DockerRunner` runs tasks by `handler`, a subclass of kfp's own."""
    original = docker_task_handler.DockerTaskHandler
    docker_task_handler.DockerTaskHandler = handler
    try:
        yield
    finally:
        docker_task_handler.DockerTaskHandler = original
