"""The export stage: files that a consumer without torch can run, held against torch; gates; bad input."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from llava import storage
from llava.errors import SettingsError, UserError
from llava.manifest import read_manifest
from llava.stages.export import Inputs, Outputs, Settings, run
from tests.hub_model import HubModel
from tests.s3_server import S3Server

CONSUMER = """
import json, sys
import numpy as np, onnxruntime
from PIL import Image
root, picture, out = sys.argv[1:]
settings = json.load(open(root + "/preprocessor_config.json"))
side = settings["crop_size"]["height"]
assert settings["do_pad"] is True
image = Image.open(picture).convert("RGB")
assert image.size == (side, side)  # nothing to pad or resize
pixels = (np.asarray(image, dtype=np.float32) / 255 - settings["image_mean"]) / settings["image_std"]
pixels = pixels.transpose(2, 0, 1)[None].astype(np.float32)
found = {}
for name in ("vision_encoder", "vision_encoder_fp16", "vision_encoder_int8"):
    session = onnxruntime.InferenceSession(f"{root}/onnx/{name}.onnx", providers=["CPUExecutionProvider"])
    [features] = session.run(["image_features"], {"pixel_values": np.repeat(pixels, 5, axis=0)})
    found[name] = features
np.savez(out, **found)
assert not any(module in sys.modules for module in ("torch", "transformers", "llava"))
"""


def outputs_in(folder: str) -> Outputs:
    return Outputs(onnx=f"{folder}/onnx", report=f"{folder}/report.html", metrics=f"{folder}/metrics")


@pytest.fixture(scope="module")
def exported(hub_model: HubModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    folder = tmp_path_factory.mktemp("exported")
    result = run(Settings(), Inputs(model=str(hub_model.model)), outputs_in(str(folder)))
    return folder, result.metrics


@pytest.mark.slow
def test_a_consumer_without_torch_gets_torchs_features(
    exported: tuple[Path, dict[str, float]], hub_model: HubModel, tmp_path: Path
) -> None:
    import numpy as np
    import torch
    from PIL import Image
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    side = 48
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    picture.save(tmp_path / "p.png")
    command = [
        sys.executable,
        "-c",
        CONSUMER,
        str(exported[0] / "onnx"),
        str(tmp_path / "p.png"),
        str(tmp_path / "f.npz"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    model = LlavaForConditionalGeneration.from_pretrained(hub_model.model)
    pixels = AutoProcessor.from_pretrained(hub_model.model).image_processor(picture, return_tensors="pt")[
        "pixel_values"
    ]
    with torch.no_grad():
        features = model.get_image_features(pixel_values=pixels)
    stock = torch.as_tensor(features[0] if isinstance(features, (list, tuple)) else features.pooler_output[0]).numpy()
    found = np.load(tmp_path / "f.npz")
    scale = float(np.sqrt((stock**2).mean()))
    for name, limit in (("vision_encoder", 1e-4), ("vision_encoder_fp16", 0.02), ("vision_encoder_int8", 0.3)):
        assert found[name].shape == (5, *stock.shape) and found[name].dtype == np.float32
        assert float(np.abs(found[name] - stock).max()) / scale < limit, name
        # Where a picture stands in the batch decides how threads share the sums: rounding, and in int8 a level here
        # and there.
        assert float(np.abs(found[name] - found[name][:1]).max()) / scale < limit, name


@pytest.mark.slow
def test_files_are_named_checked_and_described(exported: tuple[Path, dict[str, float]]) -> None:
    import onnx

    folder, metrics = exported
    root = folder / "onnx"
    names = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    files = {f"onnx/vision_encoder{end}.onnx" for end in ("", "_fp16", "_int8")}
    assert files | {"config.json", "preprocessor_config.json", "tokenizer.json", "manifest.json"} <= names
    assert not [name for name in names if "prepared" in name]
    for name in files:
        model = onnx.load(str(root / name))
        onnx.checker.check_model(model, full_check=True)
        assert [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")] == [18]
    weights = [tuple(tensor.dims) for tensor in onnx.load(str(root / "onnx/vision_encoder.onnx")).graph.initializer]
    assert weights.count((64, 32)) + weights.count((32, 64)) == 4  # two layers' MLPs: the third is not run
    manifest = read_manifest(str(root))
    assert names - {"manifest.json"} == set(manifest.files)
    for name, digest in manifest.files.items():
        assert hashlib.sha256((root / name).read_bytes()).hexdigest() == digest
    assert metrics["relative_error_fp32"] < 1e-4 < metrics["relative_error_int8"]
    assert metrics["cosine_int8"] > 0.98 and metrics["precisions_left_out"] == 0
    assert metrics["megabytes_int8"] < metrics["megabytes_fp32"]
    report = (folder / "report.html").read_text()
    assert "onnxruntime int8" in report and "kept" in report


@pytest.mark.slow
def test_a_reduced_precision_that_is_too_far_off_is_left_out_and_said(hub_model: HubModel, tmp_path: Path) -> None:
    settings = Settings(precisions="int8", min_cosine_int8=0.99999999)
    result = run(settings, Inputs(model=str(hub_model.model)), outputs_in(str(tmp_path)))
    assert result.metrics["precisions_left_out"] == 1 and result.metrics["cosine_int8"] < 0.99999999
    assert not list((tmp_path / "onnx").rglob("*.onnx"))
    assert "int8" in read_manifest(str(tmp_path / "onnx")).extra["left_out"]
    assert "Left out: int8: cosine" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_an_export_that_is_wrong_fails(hub_model: HubModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"export: fp32: relative error .*; expected at most tolerance \(1e-12\)"):
        run(Settings(precisions="fp32", tolerance=1e-12), Inputs(model=str(hub_model.model)), outputs_in(str(tmp_path)))
    assert not (tmp_path / "onnx").exists()


def test_bad_settings_are_named(hub_model: HubModel, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"precisions: found 'fp32,int3'; expected some of fp32,fp16,int8"):
        run(Settings(precisions="fp32,int3"), Inputs(model=str(hub_model.model)), outputs_in(str(tmp_path)))
    with pytest.raises(SettingsError, match="model: "):
        run(Settings(), Inputs(model=str(tmp_path / "absent")), outputs_in(str(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("opset", [20, 23])
def test_other_opsets_and_an_object_store(hub_model: HubModel, rclone_s3: S3Server, tmp_path: Path, opset: int) -> None:
    storage.upload(hub_model.model, f"{rclone_s3.uri}/model")
    places = Outputs(onnx=f"{rclone_s3.uri}/onnx", report=str(tmp_path / "r.html"), metrics=str(tmp_path / "m"))
    settings = Settings(precisions="fp32,int8", opset=opset)
    result = run(settings, Inputs(model=f"{rclone_s3.uri}/model"), places)
    assert result.metrics["relative_error_fp32"] < 1e-4
    assert storage.size(f"{places.onnx}/onnx/vision_encoder_int8.onnx")
    assert json.loads(storage.read_text(f"{places.onnx}/config.json"))["model_type"] == "llava"
