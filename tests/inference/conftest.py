"""A real `llava serve` on a small model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hub_model import HubModel, hub_model

__all__ = ["hub_model", "server"]


@dataclass(frozen=True)
class Running:
    """A server process and where it answers."""

    url: str
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def server(hub_model: HubModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    images = tmp_path_factory.mktemp("allowed")
    (images / "text.jpg").write_text("no image")
    command = [str(Path(sys.executable).parent / "llava"), "serve", "--model", str(hub_model.model), "--port", "0"]
    command += ["--name", "tiny", "--max-new-tokens", "24", "--batch-size", "4", "--images-uri", str(images)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "http://" in line:
            yield Running(line.split("http://")[1].split(" ")[0].join(["http://", ""]), process)
            break
    else:
        pytest.fail("the server did not start")
    process.terminate()
    assert process.wait(30) in (0, -15)
