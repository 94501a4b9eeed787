"""Fixtures shared by this folder."""

from __future__ import annotations

import pytest

from tests.compile_once import compile_once

COMMANDS = ("commands", "remote_commands", "clustertest.command", "schedule_commands")


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands compile nothing twice in a session."""
    for module in COMMANDS:
        monkeypatch.setattr(f"llava.pipelines.{module}.compile_package", compile_once, raising=False)


@pytest.fixture(autouse=True)
def _images_of_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of a checkout names development tags, which `submit` takes only when it is told to."""
    monkeypatch.setenv("LLAVA_ALLOW_UNPINNED", "1")
