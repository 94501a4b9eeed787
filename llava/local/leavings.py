"""What a run on this machine leaves where it can be found: figures, one page for all stages, links that stay.

    ROOT/summary.json       figures and places of the last run
    ROOT/report.html        one page that links every stage's own report
    ROOT/model, projector, onnx   links to what the last run made (of artifacts on this disk)

A run's own folder holds its `run.json`; `pipeline.py list` reads those.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llava import storage
from llava.errors import UserError
from llava.local.run import RUN_RECORD, RunRecord
from llava.report import Report
from llava.stages.stage import STAGE_MODULES
from llava.written_numbers import readable

STAGES = tuple(STAGE_MODULES)
LINKED = ("model", "projector", "onnx")
# Of each stage's figures those that say whether it went well; a stage with none of these shows none.
_TOLD = {
    "expand": ("images", "rows_pretrain", "rows_instruct", "dropped", "cost"),
    "pretrain": ("rows", "steps", "final_loss"),
    "finetune": ("rows", "steps", "final_loss", "validation_loss"),
    "evaluate": ("questions", "accuracy", "accuracy_blank", "accuracy_stage1", "questions_left_out"),
    "export": ("relative_error_fp32", "cosine_fp16", "cosine_int8"),
}


def summarise(record: RunRecord) -> dict[str, Any]:
    """Figures and places of a finished run; a cached stage's seconds are those of the run that made it."""
    stages: dict[str, Any] = {}
    for stage in STAGES:
        output = record.outputs.get(f"{stage}_metrics")
        if output is not None:
            numbers = {name: value for name, value in sorted(output.metadata.items()) if name != "stage_seconds"}
            stages[stage] = {
                "seconds": output.metadata.get("stage_seconds", 0.0),
                "cached": output.cached,
                "metrics": {name: value for name, value in numbers.items() if isinstance(value, int | float)},
            }
    places = {name: output.uri for name, output in sorted(record.outputs.items()) if not name.endswith("_metrics")}
    return {
        "run": record.run,
        "pipeline": record.pipeline,
        "finished": _moment(record.finished_unix),
        "seconds": record.seconds,
        "stages": stages,
        "paths": places,
    }


def leave(record: RunRecord, root: Path) -> dict[str, Any]:
    """Write summary, report and links below `root`; returns the summary with its own places.

    Raises:
        StorageError: the folder cannot be written to.
    """
    summary = summarise(record)
    report = root / "report.html"
    run_report(summary, root).write(str(report))
    for name in LINKED:
        uri = summary["paths"].get(name)
        if uri is not None:
            link_to(root / name, uri)
    summary["paths"] = {"report": str(report), **summary["paths"]}
    storage.write_json(str(root / "summary.json"), summary)
    return summary


def link_to(link: Path, uri: str) -> None:
    """A link at a place that can be remembered; an artifact in a store gets none, and no real folder makes way."""
    if link.exists() and not link.is_symlink():
        return
    link.unlink(missing_ok=True)
    if not storage.is_remote(uri):
        link.symlink_to(Path(uri).resolve(), target_is_directory=True)


def table(summary: dict[str, Any], root: Path) -> str:
    """The summary as lines for a terminal."""
    lines = ["", f"{'stage':<12}{'seconds':>9}"]
    for stage, entry in summary["stages"].items():
        told = ", ".join(f"{name} {readable(value)}" for name, value in _told(stage, entry["metrics"]).items())
        came = "cached " if entry["cached"] else ""
        lines.append(f"{stage:<12}{entry['seconds']:>9.1f}  {came:<8}{told}".rstrip())
    lines.append(f"{'all':<12}{summary['seconds']:>9.1f}  this run, start to end")
    lines.append("")
    shown = {name: root / name for name in LINKED if (root / name).is_symlink() and name in summary["paths"]}
    lines += [f"{name:<12}{place}" for name, place in shown.items()]
    lines += [f"{name:<12}{uri}" for name, uri in summary["paths"].items() if name in LINKED and name not in shown]
    lines += [f"{'report':<12}{root / 'report.html'}", f"{'summary':<12}{root / 'summary.json'}"]
    if "model" in summary["paths"]:
        model = shown.get("model", summary["paths"]["model"])
        lines.append(f"{'ask it':<12}llava chat --model {model} --image PICTURE")
    lines.append(f"{'again':<12}llava pipeline rerun --local --root {root} --run {summary['run']} --from STAGE")
    return "\n".join(lines)


def run_report(summary: dict[str, Any], root: Path) -> Report:
    """One page for the run: each stage's figures, and a link to its own report."""
    page = Report(f"Run of {summary['pipeline']}", summary["run"])
    page.text(f"Finished {summary['finished']} after {summary['seconds']:.0f} seconds.")
    rows = []
    links = []
    for stage, entry in summary["stages"].items():
        told = ", ".join(f"{name} {readable(value)}" for name, value in _told(stage, entry["metrics"]).items())
        rows.append([stage, round(float(entry["seconds"]), 1), "the cache" if entry["cached"] else "this run", told])
        uri = summary["paths"].get(f"{stage}_report")
        if uri is not None:
            links.append((f"Report of {stage}", _href(uri, root)))
    page.table("Stages", ["stage", "seconds", "came from", "figures"], rows)
    page.links("The stages' own reports", links)
    page.table("What it made", ["output", "where"], [[name, uri] for name, uri in summary["paths"].items()])
    for stage, entry in summary["stages"].items():
        numbers = [[name, readable(value)] for name, value in entry["metrics"].items()]
        page.table(f"All figures of {stage}", ["figure", "value"], numbers)
    return page


def runs_below(root: str) -> Iterator[RunRecord]:
    """The finished runs below a folder or URI, newest first; a record that cannot be read is passed over."""
    found = []
    for item in storage.list_files(root):
        if item.path.rsplit("/", 1)[-1] == RUN_RECORD:
            try:
                found.append(RunRecord.model_validate(storage.read_json(storage.join(root, item.path))))
            except (UserError, ValueError):
                continue
    yield from sorted(found, key=lambda record: -record.finished_unix)


def listed(records: list[RunRecord]) -> str:
    """Runs as lines: id, when, seconds, stages that ran, the headline figures."""
    lines = [f"{'run':<44}{'finished':<18}{'seconds':>8}  what came out"]
    for record in records:
        summary = summarise(record)
        told = []
        for stage, entry in summary["stages"].items():
            figures = list(_told(stage, entry["metrics"]).items())
            if stage in ("finetune", "evaluate") and figures:
                name, value = next((pair for pair in figures if pair[0] in ("accuracy", "final_loss")), figures[0])
                told.append(f"{stage} {name} {readable(value)}")
        shown = ", ".join(told) or ", ".join(summary["stages"])
        lines.append(f"{record.run:<44}{summary['finished'][:16]:<18}{record.seconds:>8.0f}  {shown}")
    return "\n".join(lines)


def _told(stage: str, metrics: dict[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in _TOLD.get(stage, ()) if name in metrics}


def _href(uri: str, root: Path) -> str:
    """Relative where the report lies below the page's folder, so that the folder can be moved."""
    if storage.is_remote(uri):
        return uri
    try:
        return Path(uri).resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return Path(uri).resolve().as_uri()


def _moment(unix: float) -> str:
    return datetime.datetime.fromtimestamp(unix, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
