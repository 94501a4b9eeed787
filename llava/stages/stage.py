"""What a stage is: a function of files and settings that never knows how it was started.

Each module of `llava/stages/` defines `Settings`, `Inputs`, `Outputs` and `run`, and joins them in a `STAGE`.
The command line, the executor and the Kubeflow components all read that one definition, so a flag, a pipeline
parameter and a field can never disagree.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from llava.errors import SettingsError

STAGE_MODULES = {
    "expand": "llava.stages.expand",
    "pretrain": "llava.stages.pretrain",
    "finetune": "llava.stages.finetune",
    "evaluate": "llava.stages.evaluate",
    "export": "llava.stages.export",
}

ArtifactForm = Literal["folder", "file", "html", "metrics"]


class StageSettings(BaseModel):
    """Base of every stage's settings: scalars only, because each field is a flag and a pipeline parameter.

    Every field has a description (it becomes `--help` and the text in the Kubeflow UI).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


class StageInputs(BaseModel):
    """Base of a stage's input artifacts: field name -> path or URI; None for an absent optional input."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StageOutputs(BaseModel):
    """Base of a stage's output artifacts: field name -> path or URI to write to."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def uri_parameter(slot: str) -> str:
    """The component's parameter that takes an input by URI, where it is no artifact of the same run."""
    return f"{slot}_uri"


def output(description: str, form: ArtifactForm, kfp_type: str) -> Any:
    """Declare an output artifact.

    Args:
        description: for `--help` and the component's documentation.
        form: `folder` and `file` are written straight to the artifact's URI; `html` is one self-contained file;
            `metrics` is nothing on disk: the numbers of the result become the artifact's metadata.
        kfp_type: Dataset, Model, HTML, Metrics or Artifact.
    """
    return Field(description=description, json_schema_extra={"form": form, "kfp_type": kfp_type})


def output_form(info: FieldInfo) -> ArtifactForm:
    """The form declared by `output`."""
    extra = info.json_schema_extra
    assert isinstance(extra, dict), "outputs are declared with stage.output()"
    return extra["form"]  # type: ignore[return-value]  # set by output() above


@dataclass(frozen=True)
class StageResult:
    """What `run` gives back besides files.

    Attributes:
        metrics: finite numbers; shown as the Metrics artifact in the Kubeflow UI and printed at the end.
        metadata: output name -> small JSON-able facts attached to that artifact (no nulls, no NaN).
    """

    metrics: dict[str, float] = field(default_factory=dict)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A stage's definition; `run(settings, inputs, outputs)` does the work and imports heavy libraries itself."""

    name: str
    summary: str
    settings: type[StageSettings]
    inputs: type[StageInputs]
    outputs: type[StageOutputs]
    run: Callable[[Any, Any, Any], StageResult]


def named_stage(name: str) -> Stage:
    """As `load_stage`, for a name that a person wrote.

    Raises:
        SettingsError: there is no such stage.
    """
    if name not in STAGE_MODULES:
        raise SettingsError(f"stage: found {name!r}; expected one of {', '.join(STAGE_MODULES)}")
    return load_stage(name)


def load_stage(name: str) -> Stage:
    """Import one stage's definition by name (`expand`, `pretrain`, `finetune`, `evaluate`, `export`)."""
    stage = importlib.import_module(STAGE_MODULES[name]).STAGE
    assert isinstance(stage, Stage)
    return stage
