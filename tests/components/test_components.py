"""The components say what the stages say, and nothing in their files has drifted."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import FOLDERS, sync
from components.images import image_of
from llava.stages.fields import default_of, scalar_type
from llava.stages.stage import STAGE_MODULES, load_stage, uri_parameter

TYPES = {str: "String", int: "Integer", float: "Float", bool: "Boolean"}


def component(stage: str) -> Any:
    return getattr(importlib.import_module(f"components.{FOLDERS[stage]}.component"), stage)


def test_every_stage_has_a_component() -> None:
    assert set(FOLDERS) == set(STAGE_MODULES)


@pytest.mark.parametrize("name", FOLDERS)
def test_settings_are_the_components_parameters(name: str) -> None:
    """By what kfp itself read from the signature: name, type, default, required or not."""
    stage, spec = load_stage(name), component(name).component_spec
    slots = {name for slot in stage.inputs.model_fields for name in (slot, uri_parameter(slot))}
    inputs = {key: value for key, value in spec.inputs.items() if key not in slots}
    assert set(inputs) == set(stage.settings.model_fields)
    for setting, info in stage.settings.model_fields.items():
        declared = inputs[setting]
        assert declared.type == TYPES[scalar_type(info)]
        assert declared.optional == (not info.is_required())
        if not info.is_required():
            assert declared.default == default_of(info)
            assert type(declared.default) in (scalar_type(info), type(None))


@pytest.mark.parametrize("name", FOLDERS)
def test_artifacts_are_the_stages(name: str) -> None:
    stage, spec = load_stage(name), component(name).component_spec
    for slot in stage.inputs.model_fields:
        assert spec.inputs[slot].type == f"system.{sync.input_type(stage, slot)}@0.0.1"
        # As an artifact or by URI: which of them, and that it is one, the executor sees.
        assert spec.inputs[slot].optional and spec.inputs[uri_parameter(slot)].default == ""
        assert spec.inputs[uri_parameter(slot)].type == "String"
    assert {key: output.type for key, output in spec.outputs.items()} == {
        key: f"system.{info.json_schema_extra['kfp_type']}@0.0.1"  # type: ignore[index]
        for key, info in stage.outputs.model_fields.items()
    }


@pytest.mark.parametrize("name", FOLDERS)
def test_the_container(name: str) -> None:
    container = component(name).component_spec.implementation.container
    assert container.image == image_of(name)
    assert container.command == ["python", "-m", "llava.executor", name]
    assert container.args == ["--executor-input", "{{$}}"]


def test_the_files_are_as_sync_writes_them() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "components.sync", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"run `python -m components.sync`:\n{done.stdout}{done.stderr}"


# Of scripts/validate_metadata of kubeflow/pipelines-components: fields, their order, versions as semver.org has them.
METADATA_ORDER = ["name", "stability", "dependencies", "lastVerified", "tags"]
VERSION = r"(==|>=|<=|~=)?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"


@pytest.mark.parametrize("name", FOLDERS)
def test_metadata_is_what_pipelines_components_validates(name: str) -> None:
    folder = Path(sync.ROOT) / FOLDERS[name]
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text())
    assert list(metadata) == METADATA_ORDER
    assert metadata["name"] == FOLDERS[name]
    assert metadata["stability"] in ("alpha", "beta", "stable")
    assert list(metadata["dependencies"]) == ["kubeflow"]
    (pipelines,) = metadata["dependencies"]["kubeflow"]
    assert pipelines["name"] == "Pipelines" and re.fullmatch(VERSION, pipelines["version"])
    assert isinstance(metadata["lastVerified"], datetime) and metadata["lastVerified"].tzinfo is not None
    assert all(isinstance(tag, str) for tag in metadata["tags"])
    owners = yaml.safe_load((folder / "OWNERS").read_text())
    assert owners["approvers"]
    assert len((folder / "README.md").read_text()) > 200


@pytest.mark.parametrize("name", FOLDERS)
def test_descriptions_are_one_line_as_the_stage_has_them(name: str) -> None:
    stage, spec = load_stage(name), component(name).component_spec
    for setting, info in stage.settings.model_fields.items():
        assert spec.inputs[setting].description == " ".join((info.description or "").split())
