"""The Kubeflow component of the export stage.

Written from `llava/stages/export.py` by `python -m components.sync`: change it there.
"""

from kfp import dsl

from components.images import image_of


@dsl.container_component
def export(
    model: dsl.Input[dsl.Model],
    onnx: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    precisions: str = "fp32",
    opset: int = 18,
) -> dsl.ContainerSpec:
    """onnx

    Args:
        precisions: p
        opset: o
        model: m
        onnx: o
        report: HTML report
        metrics: Figures
    """
    return dsl.ContainerSpec(
        image=image_of("export"),
        # The stage's name makes the container spec unlike every other one: the backend merges equal ones.
        command=["python", "-m", "llava.executor", "export"],
        args=["--executor-input", "{{$}}"],
    )
