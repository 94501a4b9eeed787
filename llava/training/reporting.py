"""What a finished run leaves for people: its HTML report. No torch here."""

from __future__ import annotations

import html
import json
from collections import Counter

from llava import storage
from llava.errors import UserError
from llava.image_token import IMAGE_TOKEN
from llava.report import Card, Report
from llava.training.job import Job, Problem, Result

MOST_PROBLEMS = 50


def build_report(job: Job, result: Result, metrics: dict[str, float]) -> Report:
    """The stage's page: figures, curves, validation, sample answers, rows left out, configuration."""
    recipe = job.train
    report = Report(
        f"{job.stage}: {job.recipe.name}",
        f"{result.steps} steps of {recipe.global_batch_size} rows on {result.world_size} process(es), {result.device}",
    )
    report.figures(_figures(result, metrics))
    for warning in result.warnings:
        report.text(f"Warning: {warning}")
    if result.resumed_from:
        report.text(f"Resumed from the checkpoint of step {result.resumed_from}; the curves are of the whole run.")
    _curves(report, result)
    _samples(report, job, result)
    _problems(report, result.problems)
    _profile(report, result)
    settings = json.dumps(
        {"recipe": job.recipe.model_dump(mode="json"), "deepspeed": result.deepspeed_config}, indent=2
    )
    report.raw(
        "Configuration", f"<details><summary>recipe and DeepSpeed</summary><pre>{html.escape(settings)}</pre></details>"
    )
    return report


def _figures(result: Result, metrics: dict[str, float]) -> dict[str, float | str]:
    figures: dict[str, float | str] = {"final loss": metrics["final_loss"], "steps": float(result.steps)}
    if result.validations:
        figures["validation loss"] = result.validations[-1].loss
    figures["tokens/s"] = round(metrics.get("tokens_per_second", 0.0))
    if "mfu" in metrics:
        figures["MFU"] = f"{100 * metrics['mfu']:.1f} %"
    figures["data wait"] = f"{100 * metrics.get('data_wait_share', 0.0):.1f} %"
    figures["padding"] = f"{100 * metrics['padding_share']:.1f} %"
    figures["seconds"] = round(metrics["seconds"], 1)
    if "accelerator_hours" in metrics:
        figures["accelerator hours"] = round(metrics["accelerator_hours"], 2)
    if "cost" in metrics:
        figures["cost"] = round(metrics["cost"], 2)
    return figures


def _curves(report: Report, result: Result) -> None:
    history = result.history  # whole: a chart thins what it draws and keeps every spike
    loss = {"training": [(float(r.step), r.loss) for r in history]}
    if result.validations:
        loss["validation"] = [(float(v.step), v.loss) for v in result.validations]
    report.line_chart("Loss", loss, x="step", y="loss per supervised token")
    spikes = [str(record.step) for record in result.history if record.spike]
    if spikes:
        report.text(f"The loss jumped at step {', '.join(spikes[:20])}{' and more' if len(spikes) > 20 else ''}.")
    report.line_chart(
        "Learning rate", {"base": [(float(r.step), r.learning_rate) for r in history]}, x="step", y="learning rate"
    )
    norms = [(float(r.step), r.grad_norm) for r in history if r.grad_norm is not None]
    if norms:
        report.line_chart("Gradient norm", {"all ranks, before clipping": norms}, x="step", y="L2 norm", log_y=True)
    speed = [(float(r.step), r.tokens / r.seconds) for r in history if r.seconds]
    if speed:
        report.line_chart("Speed", {"all ranks": speed}, x="step", y="tokens a second")
    waits = [(float(r.step), 100 * (r.data_wait_seconds or 0.0) / r.seconds) for r in history if r.seconds]
    if waits:
        report.line_chart("Waiting for data", {"rank 0": waits}, x="step", y="% of the step")


def _samples(report: Report, job: Job, result: Result) -> None:
    if not result.samples:
        return
    steps = sorted({sample.step for sample in result.samples})
    cards = []
    for last in [sample for sample in result.samples if sample.step == steps[-1]]:
        answers = [s for s in result.samples if s.record_id == last.record_id]
        lines = [last.question.replace(IMAGE_TOKEN, "").strip(), f"expected: {last.expected}"]
        lines += [f"step {answer.step}: {answer.answer}" for answer in answers]
        cards.append(Card(_image(job, last.images), lines))
    report.gallery("What it answers", cards)


def _image(job: Job, images: list[str]) -> bytes | None:
    from llava.data.images import ImageSource

    if not images:
        return None
    try:
        return ImageSource(job.images_uri).read(images[0])
    except UserError:
        return None  # gone since training; the report is not worth failing for it


def _problems(report: Report, problems: list[Problem]) -> None:
    if not problems:
        report.text("No row was left out.")
        return
    counts = Counter(problem.problem for problem in problems)
    report.table(
        "Rows left out, by problem", ["problem", "rows"], [[name, float(n)] for name, n in counts.most_common()]
    )
    report.table(
        "Rows left out" if len(problems) <= MOST_PROBLEMS else f"Rows left out, the first {MOST_PROBLEMS}",
        ["row", "what is wrong"],
        [[float(problem.row), problem.message] for problem in problems[:MOST_PROBLEMS]],
    )


def _profile(report: Report, result: Result) -> None:
    if result.profile is None:
        return
    report.text(
        f"Profile of {result.profile.steps} steps on rank 0, a step's average. The whole trace, for chrome://tracing "
        f"or ui.perfetto.dev: {result.profile.trace_uri}"
    )
    report.table(
        "Where the time of a step goes",
        ["operator", "calls", "ms on the device", "ms on the host"],
        [[line.name, line.calls, line.milliseconds, line.host_milliseconds] for line in result.profile.lines],
    )


def write_problems(uri: str, problems: list[Problem]) -> None:
    """Every row left out, as JSON lines, for whoever mends the data."""
    storage.write_text(uri, "".join(f"{problem.model_dump_json()}\n" for problem in problems))
