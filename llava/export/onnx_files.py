"""Writing the encoder as ONNX in each precision, under the names that transformers.js looks for."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from llava.export.encoder import INPUT, OUTPUT, VisionEncoder

FILE_NAMES = {
    "fp32": "vision_encoder.onnx",
    "fp16": "vision_encoder_fp16.onnx",
    "int8": "vision_encoder_int8.onnx",
}


def write_onnx(encoder: VisionEncoder, precision: str, folder: Path, pixels_ICHW: torch.Tensor, opset: int) -> Path:
    """Write one precision into `folder`; int8 is made from the fp32 file, which is written when absent.

    Args:
        encoder: in float32 on the CPU.
        precision: `fp32`; `fp16` (weights and arithmetic, float32 in and out); `int8` (dynamic, signed, per channel).
        folder: where `vision_encoder*.onnx` goes; weights above 1.5 GB go into a data file beside it.
        pixels_ICHW: an example of at least two images, so that the number of images stays free.
        opset: ONNX operator set.
    """
    path = folder / FILE_NAMES[precision]
    if precision == "int8":
        whole = folder / FILE_NAMES["fp32"]
        if not whole.exists():
            write_onnx(encoder, "fp32", folder, pixels_ICHW, opset)
        _quantise(whole, path)
        return path
    if precision == "fp16":
        encoder = copy.deepcopy(encoder).half()
    batch = torch.export.Dim("batch", min=1)
    with _quiet():
        program = torch.onnx.export(
            encoder.eval(),
            (pixels_ICHW,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"pixel_values": {0: batch}},
            opset_version=opset,
            verbose=False,
        )
        assert program is not None
        program.save(str(path))
    return path


def _quantise(whole: Path, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_suffix(".prepared.onnx")
    large = sum(item.stat().st_size for item in whole.parent.glob(f"{whole.name}*")) > 1_500_000_000
    with _quiet():
        quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True, save_as_external_data=large)
        quantize_dynamic(
            str(prepared),
            str(path),
            weight_type=QuantType.QInt8,
            per_channel=True,
            # Seven bits: without VNNI (AVX2, older AVX-512) the sum of two eight-bit products saturates sixteen bits.
            reduce_range=True,
            op_types_to_quantize=["MatMul", "Gemm"],
            use_external_data_format=large,
        )
    for leftover in path.parent.glob(f"{prepared.name}*"):
        leftover.unlink()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters print their progress and warn about each other's deprecations; the stage says what matters."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
