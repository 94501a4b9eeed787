"""Accelerators that a pod has as its limit and torch does not see are an error that says where to look."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llava import accelerators
from llava.accelerators import Seen
from llava.errors import SettingsError
from tests.test_executor import executor_input


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        ({"pipelinechannel--train_accelerators": "8", "pipelinechannel--train_cpu": "96"}, 8),
        ({"accelerator_count": "2"}, 2),
        ({"pipelinechannel--evaluate_accelerators": "0"}, 0),
        ({"accelerator_count": "{{$.inputs.parameters['pipelinechannel--train_accelerators']}}"}, 0),
        ({}, 0),
    ],
)
def test_what_the_pod_has_as_its_limit(values: dict[str, Any], asked: int) -> None:
    assert accelerators.asked_of_the_pod(values) == asked


def test_enough_are_named_and_none_asked_for_asks_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    accelerators.require(2, Seen(("NVIDIA H100",) * 2, "12.8", "2.10"))
    assert "2 x NVIDIA H100 (torch 2.10)" in capsys.readouterr().err
    accelerators.require(0)


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (Seen((), "", "2.10+cpu"), "built for CPUs"),
        (Seen(("NVIDIA H100",), "12.8", "2.10"), "8 asked for, torch sees 1"),
    ],
)
def test_fewer_are_an_error(seen: Seen, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        accelerators.require(8, seen)


@pytest.mark.slow
def test_a_stage_stops_before_it_reads_anything(tmp_path: Path) -> None:
    if accelerators.look().names:
        pytest.skip("this machine has a GPU")
    values = {"log": str(tmp_path / "log"), "pipelinechannel--train_accelerators": "1"}
    text = json.dumps(executor_input(tmp_path / "task/1", "make", values))
    command = [sys.executable, "-m", "tests.local.tiny_stages", "make", "--executor-input", text]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "accelerators: 1 asked for, torch sees 0" in done.stderr
    assert "1 accelerators asked for" in done.stderr and not (tmp_path / "log").exists()
