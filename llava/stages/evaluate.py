"""Evaluate a trained model on a benchmark, beside the same model made blind and the stage-1 model."""

from __future__ import annotations

import os
import time
from typing import Literal

from pydantic import Field

from llava import storage
from llava.manifest import Manifest, write_manifest
from llava.stages import spending
from llava.stages.stage import Stage, StageInputs, StageOutputs, StageResult, StageSettings, output
from llava.telemetry import Telemetry


class Settings(StageSettings):
    """What is asked, and how."""

    benchmark: str = Field(
        "custom",
        description=(
            "custom (your own questions), one of docs/evaluation.md, several separated by commas, a suite (llava-1.5, "
            "or a YAML file), or a Python file of your own"
        ),
    )
    questions_uri: str = Field(
        description=(
            "The benchmark's folder, as people have it, or its files, separated by commas; of several benchmarks the "
            "folder that holds theirs"
        )
    )
    images_uri: str = Field(
        "", description="Folder or s3:// prefix that image paths are relative to; after commas, further allowed places"
    )
    profile: Literal["llava-1.5", "robust"] = Field(
        "llava-1.5",
        description="How answers are read: as the original's scripts do, or with more understanding",
    )
    batch_size: int = Field(64, ge=1, description="Questions answered together")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Type the model computes in; auto: bfloat16 on a GPU, float32 on a CPU"
    )
    processes: str = Field("auto", description="Processes that share the questions; auto: one a GPU")
    endpoint: str = Field(
        "",
        description=(
            "Base URL of an OpenAI-compatible server of the same model directory (a vLLM server, http://HOST:8000/v1), "
            "which answers in place of our generator"
        ),
    )
    endpoint_model: str = Field("", description="The model's name at the endpoint; empty: the only one it serves")
    concurrency: int = Field(32, ge=1, description="Requests in flight at the endpoint")
    max_new_tokens: int = Field(0, ge=0, description="Longest answer in tokens; 0: what the benchmark needs")
    blank_baseline: bool = Field(True, description="Also ask with the image replaced by its mean colour")
    limit: int = Field(0, ge=0, description="Ask only the first so many questions; 0: all")
    max_bad_rows: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Largest share of questions without an answer: image missing or broken, or refused by the endpoint",
    )


class Inputs(StageInputs):
    """The model, and what stage 1 made of it."""

    model: str = Field(description="The fine-tuned model: a hub directory")
    projector: str | None = Field(None, description="Stage 1's projector; with it the stage-1 model is asked too")


class Outputs(StageOutputs):
    """Every answer, the report, the figures."""

    predictions: str = output(
        "Answers and scores of every question, a JSON line each, one file a model", "folder", "Dataset"
    )
    report: str = output("Figures, bars by kind with intervals, images with questions and answers", "html", "HTML")
    metrics: str = output("Accuracy with its interval, by kind, and of the baselines", "metrics", "Metrics")


def run(settings: Settings, inputs: Inputs, outputs: Outputs) -> StageResult:
    """Ask every model every question, score, report.

    Raises:
        SettingsError: no such benchmark, or the model cannot be asked.
        DataError: the questions cannot be read, or too many could not be answered.
        TransientError: an endpoint or a rank is gone; every answer so far is kept.
    """
    from llava.evaluation.contenders import Lineup
    from llava.evaluation.ranks import rank_count
    from llava.evaluation.run import Job, evaluate, headline_of
    from llava.evaluation.suite import suite_of

    began = time.monotonic()
    suite = suite_of(settings.benchmark)
    lineup = Lineup(
        model=inputs.model,
        projector=inputs.projector,
        blank=settings.blank_baseline,
        batch_size=settings.batch_size,
        dtype=settings.dtype,
        endpoint=settings.endpoint,
        endpoint_model=settings.endpoint_model,
        concurrency=settings.concurrency,
    )
    one = bool(settings.endpoint) and settings.processes == "auto"
    job = Job(
        suite=suite,
        lineup=lineup,
        questions_uri=settings.questions_uri,
        images_uri=settings.images_uri,
        profile=settings.profile,
        max_new_tokens=settings.max_new_tokens,
        limit=settings.limit,
        max_bad_rows=settings.max_bad_rows,
        ranks=1 if one else rank_count(settings.processes),
        predictions=outputs.predictions,
        report=outputs.report,
        spent=lambda: spending.spent_so_far(time.monotonic() - began),
    )
    with Telemetry("evaluate", os.environ.get("LLAVA_RUN", "")) as telemetry:
        how = settings.endpoint or f"{job.ranks} ranks, dtype {settings.dtype}, batches of {settings.batch_size}"
        telemetry.note(f"answers by {how}")
        metrics = evaluate(job, telemetry) | {"seconds": time.monotonic() - began}
        best = headline_of(metrics, suite)
        if best is not None:
            telemetry.gauge("evaluate_score", best)
        storage.write_json(storage.join(outputs.predictions, "summary.json"), metrics)
        write_manifest(
            outputs.predictions,
            Manifest(
                kind="predictions",
                stage="evaluate",
                settings=settings.model_dump(mode="json"),
                parents={"model": inputs.model} | ({"projector": inputs.projector} if inputs.projector else {}),
                numbers=metrics,
            ),
        )
    questions = int(metrics["questions"])
    return StageResult(
        metrics=metrics, metadata={"predictions": {"benchmark": settings.benchmark, "questions": questions}}
    )


STAGE = Stage(
    "evaluate", "Answer a benchmark in batches and score it, beside two baselines", Settings, Inputs, Outputs, run
)
