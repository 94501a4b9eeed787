"""Host memory of training pods is held against the plan before anything is submitted."""

from __future__ import annotations

from typing import Any

import pytest

from llava.config import load_recipe
from llava.pipelines.checks.preflight import _bytes, _check_ranks

SIZES = {"1Ki": 2**10, "3Gi": 3 * 2**30, "2G": 2e9, "5": 5, "1k": 1e3, "7Ti": 7 * 2**40, "lots": None}


@pytest.mark.parametrize("written", SIZES)
def test_quantities_are_kubernetes_own(written: str) -> None:
    assert _bytes(written) == SIZES[written]


@pytest.mark.parametrize(
    ("recipe", "stage", "accelerators", "memory", "fault"),
    [
        ("llava-v1.5-7b", "pretrain", "1", "64Gi", ""),
        ("llava-v1.5-7b-lora", "finetune", "1", "64Gi", ""),
        ("llava-v1.5-7b", "finetune", "8", "64Gi", "train_memory: found '64Gi'; finetune of llava-v1.5-7b with 8"),
        ("llava-v1.5-7b", "finetune", "8", "256Gi", ""),
        ("llava-v1.5-13b", "finetune", "8", "160Gi", "train_memory: found '160Gi'"),
        ("llava-v1.5-13b", "finetune", "8", "320Gi", ""),
        ("tiny", "finetune", "1", "1Gi", ""),  # sizes of other models are not known here
    ],
)
def test_a_pod_with_too_little_memory_for_its_ranks_is_a_fault(
    recipe: str, stage: str, accelerators: str, memory: str, fault: str
) -> None:
    values: dict[str, Any] = {"train_accelerators": accelerators, "train_memory": memory, "processes": "auto"}
    found = _check_ranks(stage, load_recipe(recipe), values)
    assert len(found) == bool(fault) and all(message.startswith(fault) for message in found)


def test_nodes_of_a_train_job_have_their_own_memory() -> None:
    recipe = load_recipe("llava-v1.5-7b", {"finetune.nodes": 2})
    values: dict[str, Any] = {
        "train_accelerators": "0", "train_memory": "8Gi", "train_job": '{"accelerators": 8, "memory": "64Gi"}',
    }  # fmt: skip
    (found,) = _check_ranks("finetune", recipe, values)
    assert found.startswith("train_job.memory: found '64Gi'; finetune of llava-v1.5-7b with 8 accelerators a node")
    values["train_job"] = '{"accelerators": 8, "memory": "256Gi"}'
    assert _check_ranks("finetune", recipe, values) == []
