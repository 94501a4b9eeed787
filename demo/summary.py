"""What came out of a demo run: the figures of ``summary.json``, the table on the terminal, one report of all stages."""

from __future__ import annotations

import html
from typing import Any

from llava import storage
from llava.local.run import RunRecord
from llava.report import Bar, Report

STAGES = ("expand", "pretrain", "finetune", "evaluate", "export")
REPORTS = {
    "evaluate": "Evaluation: pictures, questions and answers",
    "finetune": "Stage 2, fine-tuning: curves",
    "pretrain": "Stage 1, alignment: curves",
    "expand": "Data expansion: rows and what they were made from",
    "export": "Export: parity with torch, speed",
}
MODELS = {"": "fine-tuned", "stage1": "stage 1 only", "blank": "fine-tuned, image blanked"}


def summarise(record: RunRecord, *, wall_seconds: float) -> dict[str, Any]:
    """The summary of a finished run; a cached stage's seconds are those of the run that made it."""
    stages = {}
    for stage in STAGES:
        output = record.outputs[f"{stage}_metrics"]
        stages[stage] = {"seconds": output.metadata["stage_seconds"], "cached": output.cached}
    scores = record.outputs["evaluate_metrics"].metadata
    accuracy = {title: _accuracy(scores, name) for name, title in MODELS.items() if _key("accuracy", name) in scores}
    kinds = {
        name.removeprefix("accuracy_"): value
        for name, value in scores.items()
        if name.startswith("accuracy_")
        and not name.endswith(("_low", "_high"))
        and name.removeprefix("accuracy_") not in MODELS
    }
    export = record.outputs["export_metrics"].metadata
    return {
        "run": record.run,
        "wall_seconds": round(wall_seconds, 1),
        "cached": not record.ran,
        "stages": stages,
        "questions": scores.get("questions"),
        "accuracy": accuracy,
        "accuracy_by_kind": kinds,
        "parity": {name: value for name, value in sorted(export.items()) if name != "stage_seconds"},
        "paths": {
            "model": record.outputs["model"].uri,
            "onnx": record.outputs["onnx"].uri,
            **{f"{stage}_report": record.outputs[f"{stage}_report"].uri for stage in STAGES},
        },
    }


def table(summary: dict[str, Any]) -> str:
    """The summary as lines for a terminal."""
    lines = ["", f"{'stage':<12}{'seconds':>9}"]
    for stage, entry in summary["stages"].items():
        lines.append(f"{stage:<12}{entry['seconds']:>9.1f}{'  (cached)' if entry['cached'] else ''}")
    lines.append(f"{'all':<12}{summary['wall_seconds']:>9.1f}  this run, start to end")
    lines += ["", f"{'model':<28}{'accuracy':>9}   95 % interval   on {summary['questions']:.0f} held-out questions"]
    for title, entry in summary["accuracy"].items():
        lines.append(f"{title:<28}{entry['value']:>9.1%}   {entry['low']:.1%} .. {entry['high']:.1%}")
    lines.append("by kind: " + ", ".join(f"{kind} {value:.0%}" for kind, value in summary["accuracy_by_kind"].items()))
    columns, rows = _onnx_table(summary["parity"])
    lines += ["", "  ".join(f"{column:<{max(9, len(column))}}" for column in columns).rstrip()]
    lines += [
        "  ".join(f"{cell:<{max(9, len(column))}}" for cell, column in zip(row, columns, strict=True)).rstrip()
        for row in rows
    ]
    lines.append("")
    shown = {"model": "model", "onnx": "ONNX", "report": "report"}
    lines += [f"{title:<8}{summary['paths'][name]}" for name, title in shown.items() if name in summary["paths"]]
    return "\n".join(lines)


def demo_report(summary: dict[str, Any], record: RunRecord) -> Report:
    """One self-contained page: the figures, then every stage's own report (curves, pictures, questions, answers)."""
    accuracy = summary["accuracy"]
    report = Report("LLaVA demo", f"run {record.run}")
    report.figures({title: f"{100 * entry['value']:.1f} %" for title, entry in accuracy.items()})
    report.text(
        f"Share of right answers to {summary['questions']:.0f} questions about pictures that no model has seen, with "
        "95 % intervals. Beside the fine-tuned model stand the same model with the picture blanked, which is what the "
        "questions alone give away, and the model after stage 1, whose projector is aligned and whose language model "
        "has not been tuned."
    )
    report.bar_chart(
        "Held-out accuracy",
        [Bar(title, entry["value"], entry["low"], entry["high"]) for title, entry in accuracy.items()],
        y="accuracy",
    )
    kinds = summary["accuracy_by_kind"].items()
    report.bar_chart("Fine-tuned, by kind of question", [Bar(kind, value) for kind, value in kinds], y="accuracy")
    rows = [
        [stage, entry["seconds"], "the cache" if entry["cached"] else "this run"]
        for stage, entry in summary["stages"].items()
    ]
    report.table("Stages", ["stage", "seconds", "came from"], rows)
    report.table("Vision tower and projector as ONNX", *_onnx_table(summary["parity"]))
    for stage, title in REPORTS.items():
        page = storage.read_text(record.outputs[f"{stage}_report"].uri)
        # Each report keeps its own styles: a frame of its own, nothing fetched.
        # A page within a page is under the outer one's policy, too, and the evaluation's searches with a script.
        frame = f'<iframe class="frame" srcdoc="{html.escape(page)}" title="{title}"></iframe>'
        report.raw(title, frame, scripts=True)
    return report


def _onnx_table(parity: dict[str, float]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: what each exported precision differs from torch by, and what it costs."""
    columns = ["ONNX", "relative error", "cosine", "MB", f"ms a picture (torch {parity['milliseconds_torch']:.2f})"]
    precisions = [name.removeprefix("cosine_") for name in parity if name.startswith("cosine_")]
    rows = [
        [
            precision,
            f"{parity[f'relative_error_{precision}']:.1e}",
            f"{parity[f'cosine_{precision}']:.6f}",
            f"{parity[f'megabytes_{precision}']:.2f}",
            f"{parity[f'milliseconds_{precision}']:.2f}",
        ]
        for precision in sorted(precisions, key=lambda name: -parity[f"megabytes_{name}"])
    ]
    return columns, rows


def _accuracy(scores: dict[str, float], name: str) -> dict[str, float]:
    base = _key("accuracy", name)
    return {"value": scores[base], "low": scores[f"{base}_low"], "high": scores[f"{base}_high"]}


def _key(metric: str, name: str) -> str:
    return f"{metric}_{name}" if name else metric
