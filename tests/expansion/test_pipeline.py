"""What a user of the pipeline's page can set of the expansion, and where its key comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

PACKAGES = Path(__file__).parents[1] / "pipelines" / "golden"  # compiled; a test of the pipelines keeps them so


def documents() -> tuple[dict[str, Any], dict[str, Any]]:
    spec, platform = yaml.safe_load_all((PACKAGES / "full.yaml").read_text())
    return spec, platform


def test_teacher_budget_kinds_and_mixture_are_parameters_of_the_page() -> None:
    spec, _ = documents()
    offered = spec["root"]["inputDefinitions"]["parameters"]
    task = spec["root"]["dag"]["tasks"]["expand"]["inputs"]["parameters"]
    for name in ("teacher", "teacher_endpoint", "teacher_model", "max_cost", "kinds", "mixture", "ledger_uri"):
        assert f"expand_{name}" in offered
        assert task[name] == {"componentInputParameter": f"expand_{name}"}
    outputs = spec["components"]["comp-expand"]["outputDefinitions"]["artifacts"]
    assert outputs["report"]["artifactType"]["schemaTitle"] == "system.HTML"


def test_the_key_comes_from_a_secret_and_is_no_parameter() -> None:
    spec, platform = documents()
    secrets = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-expand"]["secretAsEnv"]
    (teacher,) = [one for one in secrets if one["keyToEnv"][0]["envVar"] == "OPENAI_API_KEY"]
    assert teacher["secretNameParameter"] == {"componentInputParameter": "teacher_secret"}
    inputs = spec["components"]["comp-expand"]["inputDefinitions"]["parameters"]
    assert not [name for name in inputs if "key" in name or "secret" in name]
