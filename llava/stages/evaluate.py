"""Evaluate a trained model on a benchmark, beside the same model made blind and the stage-1 model."""

from __future__ import annotations

import os
import time
from typing import Literal

from pydantic import Field

from llava import storage
from llava.errors import DataError
from llava.manifest import Manifest, write_manifest
from llava.stages.stage import Stage, StageInputs, StageOutputs, StageResult, StageSettings, output
from llava.telemetry import Telemetry


class Settings(StageSettings):
    """What is asked, and how."""

    benchmark: str = Field(
        "custom",
        description="custom (your own questions), one of docs/evaluation.md, or a Python file of your own",
    )
    questions_uri: str = Field(
        description="The benchmark's folder, as people have it; or its files, separated by commas"
    )
    images_uri: str = Field(
        "", description="Folder or s3:// prefix that image paths are relative to; after commas, further allowed places"
    )
    profile: Literal["llava-1.5", "robust"] = Field(
        "llava-1.5",
        description="How answers are read: as the original's scripts do, or with more understanding",
    )
    batch_size: int = Field(64, ge=1, description="Questions answered together")
    max_new_tokens: int = Field(0, ge=0, description="Longest answer in tokens; 0: what the benchmark needs")
    blank_baseline: bool = Field(True, description="Also ask with the image replaced by its mean colour")
    limit: int = Field(0, ge=0, description="Ask only the first so many questions; 0: all")
    max_bad_rows: float = Field(
        0.01, ge=0, le=1, description="Largest share of questions whose image is missing or broken"
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
        DataError: the questions cannot be read, or too many images are missing or broken.
    """
    from llava.data.images import ImageError
    from llava.evaluation import presentation, summary
    from llava.evaluation.benchmarks import get_benchmark
    from llava.evaluation.contenders import Contender, blinded, load_finetuned, load_stage1
    from llava.evaluation.predictions import PredictionLog, question_fingerprints
    from llava.evaluation.question_ids import check_ids
    from llava.evaluation.question_images import Images
    from llava.evaluation.runner import answer_all

    began = time.monotonic()
    benchmark = get_benchmark(settings.benchmark)
    questions = benchmark.read(settings.questions_uri)
    check_ids(questions, settings.questions_uri)
    questions = questions[: settings.limit or None]
    longest = settings.max_new_tokens or benchmark.max_new_tokens
    images = Images(settings.images_uri or benchmark.images_uri(settings.questions_uri))
    with Telemetry("evaluate", os.environ.get("LLAVA_RUN", "")) as telemetry:
        telemetry.note(f"{benchmark.name}: {len(questions)} questions; loading {inputs.model}")
        finetuned = load_finetuned(inputs.model)
        asked_of: list[Contender] = [finetuned]
        if settings.blank_baseline:
            asked_of.append(blinded(finetuned))
        if inputs.projector:
            asked_of.append(load_stage1(inputs.projector, finetuned.processor.chat_template))
        summaries: list[summary.ModelSummary] = []
        failed: dict[str, ImageError] = {}
        for contender in asked_of:
            decides = question_fingerprints(questions, contender.identity, benchmark.name, longest)
            log = PredictionLog(outputs.predictions, contender.name, decides)
            failed |= answer_all(
                contender,
                questions,
                images,
                log,
                batch_size=settings.batch_size,
                max_new_tokens=longest,
                telemetry=telemetry,
            )
            if len(failed) > settings.max_bad_rows * len(questions):
                first = next(iter(failed.values()))
                raise DataError(
                    f"{settings.questions_uri}: {len(failed)} of {len(questions)} questions have no usable image, "
                    f"more than max_bad_rows ({settings.max_bad_rows:g}); the first: {first}"
                )
            scored = [benchmark.scored(q, log.answers[q.id]) for q in questions if q.known and q.id in log.answers]
            log.finish(questions, {item.question.id: item.scores for item in scored})
            if not contender.blind:
                handed_in = benchmark.submission(settings.questions_uri, questions, log.answers)
                if handed_in:
                    name = f"{contender.name}-{handed_in.name}"
                    storage.write_bytes(storage.join(outputs.predictions, name), handed_in.data)
                    empty = f", {handed_in.empty} of them without an answer" if handed_in.empty else ""
                    telemetry.note(f"{name}: {handed_in.rows} rows{empty}, for {handed_in.server}")
            summaries.append(summary.summarise(benchmark, contender.name, contender.title, scored, settings.profile))
        metrics = summary.metrics_of(benchmark, summaries, settings.profile)
        metrics |= {"questions_left_out": float(len(failed)), "seconds": time.monotonic() - began}
        if benchmark.headline in metrics:
            telemetry.gauge("evaluate_score", metrics[benchmark.headline])
        page = presentation.build_report(
            f"Evaluation: {benchmark.name}",
            f"{len(questions)} questions from {settings.questions_uri}; model {inputs.model}",
            benchmark,
            summaries,
            settings.profile,
            images,
            failed,
        )
        page.write(outputs.report)
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
        best = summaries[0].figures.get(benchmark.headline)
        if best:
            shown = f"{best.value:.4f} ({best.low:.4f} to {best.high:.4f})"
            telemetry.note(f"{benchmark.name}: {benchmark.headline} {shown}")
    return StageResult(
        metrics=metrics, metadata={"predictions": {"benchmark": benchmark.name, "questions": len(questions)}}
    )


STAGE = Stage(
    "evaluate", "Answer a benchmark in batches and score it, beside two baselines", Settings, Inputs, Outputs, run
)
