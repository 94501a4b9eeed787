"""The log of a job: taken up where it broke off, in the order of its stamps."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx

from llava.multinode import api as api_module
from llava.multinode.api import KubernetesApi
from llava.multinode.follow import _follow
from tests.multinode.api_server import NAMESPACE, ApiServer
from tests.multinode.test_trainjob import server

__all__ = ["server"]


class Faltering(KubernetesApi):
    """Its log breaks off as a test server cannot be made to: a silence, a fault of the connection's own library."""

    def __init__(self, url: str) -> None:
        super().__init__(url, NAMESPACE)
        self.asked_since: list[str] = []

    def log_lines(self, pod: str, container: str, since: str = "") -> Iterator[tuple[str, str]]:
        self.asked_since.append(since)
        number = len(self.asked_since)
        yield f"2026-01-01T00:00:0{number}.5Z", f"line {number}"
        if number == 1:
            raise httpx.ReadTimeout("The read operation timed out")
        if number == 2:
            raise httpx.StreamClosed  # no httpx.HTTPError


def test_a_log_is_taken_up_again_where_it_broke_off(server: ApiServer) -> None:
    server.logs["node-0"] = []
    api, said, ended = Faltering(server.url), [], threading.Event()

    def say(text: str) -> None:
        said.append(text)
        if text == "line 3":
            ended.set()

    _follow(api, "job", ended, say, 0.01)
    assert [text for text in said if text.startswith("line")][:3] == ["line 1", "line 2", "line 3"]
    assert api.asked_since[:3] == ["", "2026-01-01T00:00:01.5Z", "2026-01-01T00:00:02.5Z"]
    assert sum("log interrupted" in text for text in said) == 1, "a silence is no interruption"


def test_log_stamps_sort_by_time() -> None:
    stamps = ["2026-01-01T00:00:05Z", "2026-01-01T00:00:05.1Z", "2026-01-01T00:00:05.12Z", "2026-01-01T00:00:06Z"]
    assert sorted(stamps, key=api_module._moment) == stamps
