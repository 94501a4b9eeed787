"""The measurement itself: a file that is wrong anywhere, in any batch size, is measured as wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llava.export import parity


@pytest.mark.parametrize(
    ("wrong_size", "wrong_image"),
    [(1, 0), (1, 3), (3, 0), (1, 4), (3, 4)],
    ids=["alone, first", "alone, in between", "batch, first", "alone, last", "batch, last"],
)
def test_an_error_anywhere_is_the_largest_error(
    wrong_size: int, wrong_image: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five images that carry their number; the file is off by 0.5 for one of them, in batches cut for one size."""
    pixels_ICHW = torch.arange(5.0)[:, None, None, None].expand(5, 3, 2, 2)
    now: list[int] = []

    def run(session: Any, part_ICHW: torch.Tensor) -> parity.Features:
        numbers = part_ICHW[:, 0, 0, 0].numpy()
        off = np.where((numbers == wrong_image) & (now[-1] == wrong_size), 0.5, 0.0)
        features = np.ones((len(numbers), 2, 4), np.float32)
        features[:, :, 0] += off[:, None]
        return features

    class Sizes(tuple[int, ...]):
        def __iter__(self) -> Any:
            for size in tuple.__iter__(self):
                now.append(size)
                yield size

    monkeypatch.setattr(parity, "BATCHES", Sizes(parity.BATCHES))
    monkeypatch.setattr(parity, "open_session", lambda path: None)
    monkeypatch.setattr(parity, "_check_interface", lambda session: None)
    monkeypatch.setattr(parity, "run", run)
    monkeypatch.setattr(parity, "torch_features", lambda encoder, part: np.ones((len(part), 2, 4), np.float32))
    found = parity.measure(tmp_path / "f.onnx", encoder=None, pixels_ICHW=pixels_ICHW, repeats=1)  # type: ignore[arg-type]
    assert found.max_error == 0.5 and found.relative_error == 0.5
    assert found.cosine == pytest.approx(4.5 / (2 * math.sqrt(5.25))), "of (1.5, 1, 1, 1) and (1, 1, 1, 1)"
    assert set(now) == {1, 3}, "one image alone is what most consumers run"
