"""Three stages that do next to nothing, for tests of what runs stages: the executor, local runs, the command line.

They are real stages in every respect but their work. `python -m tests.local.tiny_stages <stage> --executor-input JSON`
is to them what `python -m llava.executor` is to the shipped ones. Each appends its name to the file `log`, so that a
test can see what really ran.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from typing import Literal

from pydantic import Field

from llava import executor, storage
from llava.errors import DataError, StoreAwayError
from llava.stages.stage import STAGE_MODULES, Stage, StageInputs, StageOutputs, StageResult, StageSettings, output


class MakeSettings(StageSettings):
    log: str = Field(description="File to append the stage's name to")
    rows: int = Field(3, ge=1, description="Rows to make")
    scale: float = Field(1.5, description="Factor of every row")
    kind: Literal["plain", "fancy"] = Field("plain", description="Kind of rows")
    loud: bool = Field(False, description="Write in capitals")
    limit: int | None = Field(None, description="At most so many rows")


class NoInputs(StageInputs):
    pass


class MakeOutputs(StageOutputs):
    data: str = output("The rows", "file", "Dataset")
    report: str = output("What was made", "html", "HTML")
    metrics: str = output("Counts", "metrics", "Metrics")


def make(settings: MakeSettings, inputs: NoInputs, outputs: MakeOutputs) -> StageResult:
    _note(settings.log, "make")
    rows = [settings.scale * index for index in range(settings.rows)][: settings.limit]
    storage.write_json(outputs.data, {"kind": settings.kind, "rows": rows, "loud": settings.loud})
    storage.write_text(outputs.report, f"<html>{settings.rows} rows</html>")
    return StageResult({"rows": len(rows), "broken": math.nan}, {"data": {"kind": settings.kind, "nothing": None}})


class LearnSettings(StageSettings):
    log: str = Field(description="File to append the stage's name to")
    rate: float = Field(0.5, gt=0, description="Learning rate")
    fail: str = Field(
        "",
        description="user: the user's fault; crash: ours; kill2: killed twice; store: away once; wait",
    )


class LearnInputs(StageInputs):
    data: str = Field(description="The rows")


class LearnOutputs(StageOutputs):
    model: str = output("The model", "folder", "Model")
    metrics: str = output("Figures", "metrics", "Metrics")


def learn(settings: LearnSettings, inputs: LearnInputs, outputs: LearnOutputs) -> StageResult:
    _note(settings.log, "learn")
    print("learn: step 1/2", file=sys.stderr, flush=True)
    if settings.fail == "user":
        raise DataError("rows.json: row 3: value: found 'x'; expected a number")
    if settings.fail == "crash":
        raise RuntimeError("broken invariant")
    with open(settings.log) as log:
        attempts = log.read().splitlines().count("learn")
    if settings.fail.startswith("kill") and attempts <= int(settings.fail[4:]):
        os.kill(os.getpid(), signal.SIGKILL)
    if settings.fail == "store" and attempts == 1:
        raise StoreAwayError("s3://b/k: the store did not answer before the deadline")
    if settings.fail == "wait":
        time.sleep(60)
    total = sum(storage.read_json(inputs.data)["rows"]) * settings.rate
    storage.write_json(storage.join(outputs.model, "weights.json"), total)
    print(f"learn: interpreter {sys.executable} variable {os.environ.get('TINY_VARIABLE')}", flush=True)
    return StageResult({"total": total})


class JudgeSettings(StageSettings):
    log: str = Field(description="File to append the stage's name to")


class JudgeInputs(StageInputs):
    model: str = Field(description="The model")
    data: str | None = Field(None, description="The rows it learnt from")


class JudgeOutputs(StageOutputs):
    metrics: str = output("Figures", "metrics", "Metrics")


def judge(settings: JudgeSettings, inputs: JudgeInputs, outputs: JudgeOutputs) -> StageResult:
    _note(settings.log, "judge")
    return StageResult(
        {
            "grade": storage.read_json(storage.join(inputs.model, "weights.json")),
            "saw_data": float(inputs.data is not None),
        }
    )


STAGES = {
    "make": Stage("make", "Makes rows", MakeSettings, NoInputs, MakeOutputs, make),
    "learn": Stage("learn", "Learns from rows", LearnSettings, LearnInputs, LearnOutputs, learn),
    "judge": Stage("judge", "Judges a model", JudgeSettings, JudgeInputs, JudgeOutputs, judge),
}


def _note(log: str, name: str) -> None:
    with open(log, "a") as file:
        file.write(f"{name}\n")


if __name__ == "__main__":
    STAGE_MODULES.clear()
    STAGE_MODULES.update(dict.fromkeys(STAGES, "tests.local.tiny_stages"))
    vars(executor)["load_stage"] = STAGES.__getitem__
    sys.exit(executor.program("tests.local.tiny_stages"))
