"""Export the vision tower and projector of a trained model as ONNX, and prove that it computes the same."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from llava import storage
from llava.errors import SettingsError, UserError
from llava.manifest import Manifest, sha256, write_manifest
from llava.report import Bar, Report
from llava.stages.stage import Stage, StageInputs, StageOutputs, StageResult, StageSettings, output
from llava.telemetry import Telemetry

if TYPE_CHECKING:
    from llava.export.parity import Parity

SAMPLES = 8


class Settings(StageSettings):
    """What is written, and how close it must be."""

    precisions: str = Field("fp32,fp16,int8", description="Precisions to write, of fp32, fp16, int8")
    opset: Literal[18, 20, 23, 24] = Field(18, description="ONNX operator set; from 23 on attention is one node")
    tolerance: float = Field(
        1e-3, gt=0, description="fp32: largest error of a feature, as a share of the features' root mean square"
    )
    tolerance_fp16: float = Field(0.05, gt=0, description="The same for fp16")
    min_cosine_int8: float = Field(
        0.98, gt=0, le=1, description="int8: smallest cosine between a visual token and torch's"
    )


class Inputs(StageInputs):
    """The trained model."""

    model: str = Field(description="Model to export: a hub directory")


class Outputs(StageOutputs):
    """The files, the report, the figures."""

    onnx: str = output("onnx/vision_encoder*.onnx with configuration and preprocessor", "folder", "Model")
    report: str = output("Parity with torch, speed and size of each precision", "html", "HTML")
    metrics: str = output("Errors, cosines, milliseconds, megabytes", "metrics", "Metrics")


def run(settings: Settings, inputs: Inputs, outputs: Outputs) -> StageResult:
    """Write every precision, run each in onnxruntime beside torch, keep those that are close enough.

    Raises:
        SettingsError: unknown precisions, or no model that can be read.
        UserError: fp32 is not close enough: then the export itself is wrong. A reduced precision that is not is left
            out of the output, and the report, the metrics and the log say so.
    """
    import torch
    from transformers import AutoProcessor
    from transformers.utils import logging

    from llava.export import parity
    from llava.export.encoder import VisionEncoder, sample_pixels
    from llava.export.onnx_files import write_onnx
    from llava.export.precisions import parse_precisions
    from llava.model.saving import load_model
    from llava.model.sources import resolve

    began = time.monotonic()
    precisions = parse_precisions(settings.precisions)
    logging.disable_progress_bar()
    with Telemetry("export", os.environ.get("LLAVA_RUN", "")) as telemetry:
        threads = f"CPU with {torch.get_num_threads()} threads, 1 rank, fp32"
        telemetry.note(f"{threads}, to be written as {', '.join(precisions)}")
        telemetry.note(f"loading {inputs.model}")
        path = resolve(inputs.model, "model")
        try:
            processor = AutoProcessor.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise SettingsError(f"model: {inputs.model}: its processor cannot be read: {error}") from error
        encoder = VisionEncoder(load_model(path, dtype=torch.float32)).requires_grad_(False).eval()
        pixels = sample_pixels(processor, SAMPLES)
        eager = parity.milliseconds(lambda: parity.torch_features(encoder, pixels[:1]), 3)
        measured: dict[str, Parity] = {}
        left_out: dict[str, str] = {}
        with tempfile.TemporaryDirectory(prefix="llava-export-") as scratch:
            root = Path(scratch)
            folder = root / "onnx"
            folder.mkdir()
            for number, precision in enumerate(precisions):
                telemetry.progress("precisions", number, len(precisions), now=precision)
                file = write_onnx(encoder, precision, folder, pixels[:2], settings.opset)
                measured[precision] = found = parity.measure(file, encoder, pixels)
                telemetry.note(
                    f"{precision}: error {found.relative_error:.2e} of the features' size, cosine {found.cosine:.6f}, "
                    f"{found.milliseconds:.1f} ms an image (torch {eager:.1f} ms), {found.megabytes:.1f} MB"
                )
                fault = _fault(settings, precision, found)
                if fault and precision == "fp32":
                    raise UserError(f"export: {fault}")
                if fault:
                    telemetry.note(f"{precision} is left out: {fault}")
                    left_out[precision] = fault
            for precision in ("fp32", "fp16", "int8"):
                if precision not in measured or precision in left_out:
                    _drop(folder, precision)
            telemetry.progress("precisions", len(precisions), len(precisions))
            _beside(Path(path), processor, root)
            storage.upload(root, outputs.onnx)
            hashes = {
                item.relative_to(root).as_posix(): sha256(item.read_bytes())
                for item in sorted(root.rglob("*"))
                if item.is_file()
            }
        metrics = _metrics(measured, left_out, eager)
        metrics["seconds"] = time.monotonic() - began
        write_manifest(
            outputs.onnx,
            Manifest(
                kind="onnx",
                stage="export",
                settings=settings.model_dump(mode="json"),
                parents={"model": inputs.model},
                numbers=metrics,
                files=hashes,
                extra={"left_out": left_out},
            ),
        )
        _report(settings, inputs.model, measured, left_out, eager).write(outputs.report)
        for name, value in metrics.items():
            telemetry.gauge(f"export_{name}", value)
    kept = [precision for precision in measured if precision not in left_out]
    return StageResult(metrics=metrics, metadata={"onnx": {"precisions": ",".join(kept), "opset": settings.opset}})


def _fault(settings: Settings, precision: str, found: Parity) -> str:
    if precision == "int8":
        if not found.cosine >= settings.min_cosine_int8:
            return f"int8: cosine {found.cosine:.4f}; expected at least min_cosine_int8 ({settings.min_cosine_int8:g})"
        return ""
    name = "tolerance" if precision == "fp32" else "tolerance_fp16"
    limit = getattr(settings, name)
    if not found.relative_error <= limit:
        return f"{precision}: relative error {found.relative_error:.3g}; expected at most {name} ({limit:g})"
    return ""


def _drop(folder: Path, precision: str) -> None:
    from llava.export.onnx_files import FILE_NAMES

    for file in folder.glob(f"{FILE_NAMES[precision]}*"):
        file.unlink()


def _beside(model: Path, processor: Any, root: Path) -> None:
    """Configuration, tokenizer and preprocessor, so that the folder is all a consumer needs for images."""
    if model.is_dir():
        for name in ("config.json", "generation_config.json"):
            if (model / name).exists():
                (root / name).write_bytes((model / name).read_bytes())
    from llava.export.for_others import write_for_others
    from llava.model.processor_saving import save_processor

    save_processor(processor, root)
    write_for_others(processor, root)


def _metrics(measured: dict[str, Parity], left_out: dict[str, str], eager: float) -> dict[str, float]:
    metrics = {"milliseconds_torch": eager, "precisions_left_out": float(len(left_out))}
    for precision, found in measured.items():
        metrics[f"max_error_{precision}"] = found.max_error
        metrics[f"relative_error_{precision}"] = found.relative_error
        metrics[f"cosine_{precision}"] = found.cosine
        metrics[f"milliseconds_{precision}"] = found.milliseconds
        metrics[f"megabytes_{precision}"] = found.megabytes
    return metrics


def _report(
    settings: Settings, model: str, measured: dict[str, Parity], left_out: dict[str, str], eager: float
) -> Report:
    report = Report("Export to ONNX", f"vision tower and projector of {model}, opset {settings.opset}")
    report.text(
        f"Each file was run by onnxruntime on the CPU and compared with torch in float32 on {SAMPLES} images, one at "
        "a time and in batches. The error is the largest difference of any feature, as a share of the features' root "
        "mean square; the cosine is the smallest of any visual token."
    )
    limits = {
        "fp32": f"error at most {settings.tolerance:g}",
        "fp16": f"error at most {settings.tolerance_fp16:g}",
        "int8": f"cosine at least {settings.min_cosine_int8:g}",
    }
    report.table(
        "Parity with torch",
        ["precision", "error", "cosine", "required", "result", "MB"],
        [
            [
                precision,
                float(f"{found.relative_error:.3g}"),
                f"{found.cosine:.6f}",
                limits[precision],
                "left out" if precision in left_out else "kept",
                round(found.megabytes, 2),
            ]
            for precision, found in measured.items()
        ],
    )
    for fault in left_out.values():
        report.text(f"Left out: {fault}.")
    bars = [Bar("torch float32", round(eager, 2))]
    bars += [Bar(f"onnxruntime {precision}", round(found.milliseconds, 2)) for precision, found in measured.items()]
    return report.bar_chart("Time of one image on this machine's CPU", bars, y="milliseconds")


STAGE = Stage("export", "Vision tower and projector as ONNX, checked against torch", Settings, Inputs, Outputs, run)
