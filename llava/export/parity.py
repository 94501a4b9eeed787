"""How far an ONNX file is from torch, and how fast it is: measured by running it, in several batch sizes.

Shapes: I images, P visual tokens an image, D text width.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from llava.export.encoder import INPUT, OUTPUT, VisionEncoder

BATCHES = (1, 3)  # a batch size the file was not traced with among them
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Parity:
    """One file against torch.

    Attributes:
        max_error: largest absolute difference of a feature.
        relative_error: the same, divided by the root mean square of torch's features.
        cosine: smallest cosine between a visual token of the file and torch's.
        milliseconds: median time of one image in onnxruntime, on the CPU.
        megabytes: size of the file and its external data.
    """

    max_error: float
    relative_error: float
    cosine: float
    milliseconds: float
    megabytes: float


def measure(path: Path, encoder: VisionEncoder, pixels_ICHW: torch.Tensor, *, repeats: int = 3) -> Parity:
    """Run the file on the CPU beside torch, on the same pixels.

    Raises:
        ValueError: names, shapes or types of the file are not those promised.
    """
    session = open_session(path)
    _check_interface(session)
    worst, cosine, scale = 0.0, 1.0, 0.0
    for size in BATCHES:
        for start in range(0, len(pixels_ICHW), size):
            part_ICHW = pixels_ICHW[start : start + size]
            ours, theirs = run(session, part_ICHW), torch_features(encoder, part_ICHW)
            if ours.shape != theirs.shape:
                raise ValueError(f"{path.name}: features of shape {ours.shape}, torch has {theirs.shape}")
            worst = max(worst, float(np.abs(ours - theirs).max()))
            scale = max(scale, float(np.sqrt(np.mean(theirs**2))))
            cosine = min(cosine, float(_cosines(ours, theirs).min()))
    one = pixels_ICHW[:1]
    return Parity(
        worst,
        worst / scale if scale else float("inf"),
        cosine,
        milliseconds(lambda: run(session, one), repeats),
        sum(item.stat().st_size for item in path.parent.glob(f"{path.name}*")) / 1e6,
    )


def open_session(path: Path) -> Any:
    """An onnxruntime session on the CPU with torch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(session: Any, pixels_ICHW: torch.Tensor) -> Features:
    """Features (I, P, D) of the file."""
    features: Features = session.run([OUTPUT], {INPUT: pixels_ICHW.numpy()})[0]
    return features


def torch_features(encoder: VisionEncoder, pixels_ICHW: torch.Tensor) -> Features:
    """Features (I, P, D) of torch."""
    with torch.no_grad():
        return encoder(pixels_ICHW).numpy()  # type: ignore[no-any-return]


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call, after one that does not count."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def _check_interface(session: Any) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    found = [(item.name, item.type) for item in (*inputs, *outputs)]
    if found != [(INPUT, "tensor(float)"), (OUTPUT, "tensor(float)")]:
        raise ValueError(f"the file has {found}; expected float {INPUT} in and float {OUTPUT} out")
    if isinstance(inputs[0].shape[0], int):
        raise ValueError(f"the file takes exactly {inputs[0].shape[0]} images; expected any number")


def _cosines(ours: Features, theirs: Features) -> Features:
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(-1) / np.maximum(norms, 1e-30), dtype=np.float32)
