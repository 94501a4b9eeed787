"""What one training run is told: written by the stage as JSON, read by every rank.

It holds URIs and the whole recipe, so that a worker on another node needs nothing else.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llava import storage
from llava.config import Recipe, TrainRecipe
from llava.validation import validate

StageName = Literal["pretrain", "finetune"]


class Job(BaseModel):
    """One run of one stage.

    Attributes:
        projector_uri: finetune only: the stage-1 projector to start from; empty for a fresh one.
        resume_uri: checkpoints of an earlier run to begin from while there are none of this one; empty: none.
        output_uri: the projector's (pretrain) or the model's (finetune) folder.
        result_uri: where rank 0 writes the `Result` when all is done.
        failure_uri: a folder every rank may write a `Failure` into.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: StageName
    run: str = ""
    recipe: Recipe
    data_uri: str
    images_uri: str
    projector_uri: str = ""
    output_uri: str
    checkpoints_uri: str
    resume_uri: str = ""
    result_uri: str
    failure_uri: str
    threads_per_process: int = Field(0, ge=0, description="0: whatever torch takes")
    tracking: str = Field("", description="Trackers that get the curves too; see `llava.tracking.destinations`")
    profile_steps: int = Field(0, ge=0, description="Steps under the profiler; 0: none")

    @property
    def train(self) -> TrainRecipe:
        """The recipe's section for this stage."""
        return self.recipe.pretrain if self.stage == "pretrain" else self.recipe.finetune

    def write(self, uri: str) -> None:
        """Write for the workers."""
        storage.write_json(uri, self.model_dump(mode="json"))

    @classmethod
    def read(cls, uri: str) -> Job:
        """Read what `write` wrote."""
        return validate(cls, storage.read_json(uri), uri)


class StepRecord(BaseModel):
    """One optimiser step, as the report and a resumed run need it. Seconds are wall-clock, tokens count all ranks.

    In a very long run old steps are merged (`llava.training.history`): then `steps` of them, `step` one of these.
    """

    model_config = ConfigDict(extra="forbid")

    step: int
    loss: float
    learning_rate: float
    tokens: int
    padding: float
    grad_norm: float | None = None
    seconds: float | None = None
    data_wait_seconds: float | None = None
    spike: bool = False
    steps: int = 1


class Validation(BaseModel):
    """Validation after `step` optimiser steps: mean loss over the supervised tokens of the rows set aside."""

    model_config = ConfigDict(extra="forbid")

    step: int
    loss: float


class Sample(BaseModel):
    """What the model answered to a validation row after `step` optimiser steps."""

    model_config = ConfigDict(extra="forbid")

    step: int
    record_id: str
    images: list[str]
    question: str
    expected: str
    answer: str


class ProfileLine(BaseModel):
    """One operator of a profile: calls, its own time on the device and on the host, a step's average."""

    model_config = ConfigDict(extra="forbid")

    name: str
    calls: float
    milliseconds: float
    host_milliseconds: float


class Profile(BaseModel):
    """What the profiled steps spent their time on, most expensive first, and where the whole trace lies."""

    model_config = ConfigDict(extra="forbid")

    steps: int
    trace_uri: str
    lines: list[ProfileLine]


class Problem(BaseModel):
    """A row that was left out, and why; see `llava.errors.RowError`."""

    model_config = ConfigDict(extra="forbid")

    file: str
    row: int
    field: str
    problem: str
    message: str


class Result(BaseModel):
    """What a finished run reports to its stage."""

    model_config = ConfigDict(extra="forbid")

    steps: int
    resumed_from: int | None
    world_size: int
    device: str
    history: list[StepRecord]
    validations: list[Validation]
    samples: list[Sample]
    numbers: dict[str, float]
    deepspeed_config: dict[str, Any]
    warnings: list[str]
    data_sha256: str
    problems: list[Problem]
    profile: Profile | None = None


class Failure(BaseModel):
    """How a rank ended: `user` errors are shown as they are, others with their traceback.

    `lost_peer`: it only lost the connection to another rank, so the cause lies there.
    """

    model_config = ConfigDict(extra="forbid")

    rank: int
    unix_time: float
    user: bool
    lost_peer: bool = False
    error_class: str
    message: str
    traceback: str
