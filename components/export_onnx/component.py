"""The Kubeflow component of the export stage.

Written from `llava/stages/export.py` by `python -m components.sync`: change it there.
"""

# ruff: noqa: UP045
from typing import Optional

from kfp import dsl

from components.images import image_of


@dsl.container_component
def export(
    onnx: dsl.Output[dsl.Model],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    precisions: str = "fp32,fp16,int8",
    opset: int = 18,
    tolerance: float = 0.001,
    tolerance_fp16: float = 0.05,
    min_cosine_int8: float = 0.98,
    model: Optional[dsl.Input[dsl.Model]] = None,
    model_uri: str = "",
) -> dsl.ContainerSpec:
    """Vision tower and projector as ONNX, checked against torch

    Args:
        precisions: Precisions to write, of fp32, fp16, int8
        opset: ONNX operator set; from 23 on attention is one node
        tolerance: fp32: largest error of a feature, as a share of the features' root mean square
        tolerance_fp16: The same for fp16
        min_cosine_int8: int8: smallest cosine between a visual token and torch's
        model: Model to export: a hub directory
        model_uri: model by URI, from any bucket, instead of as an artifact
        onnx: onnx/vision_encoder*.onnx with configuration and preprocessor
        report: Parity with torch, speed and size of each precision
        metrics: Errors, cosines, milliseconds, megabytes
    """
    return dsl.ContainerSpec(
        image=image_of("export"),
        # The stage's name makes the container spec unlike every other one: the backend merges equal ones.
        command=["python", "-m", "llava.executor", "export"],
        args=["--executor-input", "{{$}}"],
    )
