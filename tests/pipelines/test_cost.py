"""What a run used, from the workflow that the API keeps: every attempt counts."""

from __future__ import annotations

import json

from llava.pipelines.cost_command import table
from llava.pipelines.executions import executions
from tests.pipelines.test_executions import launcher_patch


def node(stage: str, phase: str, name: str, **used: int) -> dict[str, object]:
    patch = launcher_patch(stage, {}, {"metrics": f"s3://b/llava-full/run-a/{stage}/1/metrics"}, {})
    inputs = {"parameters": [{"name": "pod-spec-patch", "value": patch}]}
    amounts = {key.replace("gpu", "nvidia.com/gpu"): value for key, value in used.items()}
    return {"type": "Pod", "phase": phase, "displayName": name, "inputs": inputs, "resourcesDuration": amounts}


def test_hours_by_stage_with_a_lost_attempt() -> None:
    nodes = {
        "1": node("expand", "Succeeded", "executor(0)", cpu=7200, memory=36864),
        "2": node("pretrain", "Failed", "executor(0)", cpu=3600, gpu=14400, memory=0),
        "3": node("pretrain", "Succeeded", "executor(1)", cpu=3600, gpu=43200, memory=0),
    }
    found = executions(json.dumps({"status": {"nodes": nodes}}))
    lines = [line.split() for line in table(found, "nvidia.com/gpu", 2.5).splitlines()]
    # By hand: 14400 + 43200 GPU seconds are 16 hours, 40 at 2.5; 36864 times 100 MiB seconds are 1 GiB hour.
    assert lines[1:] == [
        ["expand", "1", "0.00", "2.00", "1.0", "0.00"],
        ["pretrain", "2", "16.00", "2.00", "0.0", "40.00"],
        ["sum", "3", "16.00", "4.00", "1.0", "40.00"],
    ]
