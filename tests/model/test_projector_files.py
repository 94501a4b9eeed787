"""The projector by itself: W to and from its own file, refused where it does not fit, deep ones with their code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llava.errors import SettingsError, StorageError
from llava.manifest import Manifest, sha256, write_manifest
from llava.model import saving
from llava.model.freezing import set_trainable

Built = Callable[..., tuple[Any, Any]]


@pytest.mark.parametrize("kind", ["mlp2x_gelu", "linear", "mlp1x_gelu", "mlp3x_gelu"])
def test_projector_round_trip(kind: str, built: Built, tmp_path: Path) -> None:
    model, _ = built(projector=kind)
    set_trainable(model, "pretrain")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    saving.save_projector(model, str(tmp_path / "p"))
    fresh, _ = built(projector=kind)
    saving.load_projector(fresh, str(tmp_path / "p"))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), fresh.state_dict().values(), strict=True))
    facts = json.loads((tmp_path / "p" / saving.PROJECTOR_CONFIG).read_text())
    assert facts["projector"] == ("linear" if kind == "mlp1x_gelu" else kind)
    assert all(key.startswith("multi_modal_projector.") for key in load_file(tmp_path / "p" / saving.PROJECTOR_FILE))


def test_a_projector_for_another_model_is_refused(built: Built, tmp_path: Path) -> None:
    model, _ = built()
    saving.save_projector(model, str(tmp_path / "p"))
    for fields, message in (
        ({"projector": "linear"}, "projector = 'mlp2x_gelu', but this recipe's model has 'linear'"),
        ({"vision_feature_layer": -1}, "trained with vision_feature_layer = -2"),
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy"),
        ({"architecture": "llava_next"}, "architecture"),
    ):
        other, _ = built(**fields)
        with pytest.raises(SettingsError, match=message):
            saving.load_projector(other, str(tmp_path / "p"))
    (tmp_path / "p" / saving.PROJECTOR_FILE).write_bytes(b"\x10")
    with pytest.raises(StorageError, match="not a readable safetensors file"):
        saving.load_projector(model, str(tmp_path / "p"))
    with pytest.raises(StorageError, match="no such file"):
        saving.load_projector(model, str(tmp_path / "nowhere"))


DEEP = """
import sys, torch
from transformers import AutoModelForImageTextToText, AutoProcessor
options = {"trust_remote_code": True, "output_loading_info": True}
model, report = AutoModelForImageTextToText.from_pretrained(sys.argv[1], **options)
assert not any(report.values()), report
AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
assert not any(name == "llava" or name.startswith("llava.") for name in sys.modules), "our code was imported"
pixels = torch.linspace(-1, 1, 3 * 48 * 48).reshape(1, 3, 48, 48)
print(model.get_image_features(pixels).pooler_output[0].double().sum().item())
"""


@pytest.mark.slow
def test_a_deep_projector_carries_its_own_code(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlavaForConditionalGeneration

    model, processor = built(projector="mlp3x_gelu")
    saving.save_model(model, processor, str(tmp_path / "m"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    done = subprocess.run(
        [sys.executable, "-c", DEEP, str(tmp_path / "m")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pixels = torch.linspace(-1, 1, 3 * 48 * 48).reshape(1, 3, 48, 48)
    expected = model.get_image_features(pixels).pooler_output[0].double().sum().item()
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(expected, rel=1e-6)
    again = saving.load_model(str(tmp_path / "m"))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    _, report = LlavaForConditionalGeneration.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert report["missing_keys"], "the stock class must not take part of a deep projector as if it were whole"


def test_one_flipped_bit_of_a_projector_is_noticed(built: Any, tmp_path: Path) -> None:
    model, _ = built()
    saving.save_projector(model, str(tmp_path))
    path = tmp_path / saving.PROJECTOR_FILE
    files = {path.name: sha256(path.read_bytes())}
    write_manifest(str(tmp_path), Manifest(kind="projector", stage="pretrain", files=files))
    saving.load_projector(model, str(tmp_path))
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    with pytest.raises(StorageError, match="damaged: sha256"):
        saving.load_projector(model, str(tmp_path))
