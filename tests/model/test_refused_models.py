"""Saved models that are damaged, of another kind or hostile are refused; the message names file and field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from llava.contents import hashes_of
from llava.errors import SettingsError, UserError
from llava.manifest import Manifest, write_manifest
from llava.model import saving, sources

Built = Callable[..., tuple[Any, Any]]


def test_missing_weights_are_refused(built: Built, tmp_path: Path) -> None:
    model, processor = built()
    saving.save_model(model, processor, str(tmp_path / "m"))
    path = tmp_path / "m" / "model.safetensors"
    state = load_file(path)
    del state["multi_modal_projector.linear_1.weight"]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(SettingsError, match=r"1 weights are missing .*multi_modal_projector.linear_1.weight"):
        saving.load_model(str(tmp_path / "m"))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SettingsError, match="cannot be read"):
        saving.load_model(str(tmp_path / "m"))


def test_another_kind_of_model_is_named(tiny_llama_dir: Path) -> None:
    with pytest.raises(SettingsError, match="is a 'llama'; expected one of llava, llava_next"):
        saving.load_model(str(tiny_llama_dir))


def test_one_flipped_bit_of_a_saved_model_is_noticed(built: Any, tmp_path: Path) -> None:
    model, processor = built()
    saving.save_model(model, processor, str(tmp_path / "m"))
    files = hashes_of(tmp_path / "m")
    write_manifest(str(tmp_path / "m"), Manifest(kind="model", stage="finetune", files=files))
    saving.load_model(str(tmp_path / "m"))
    weights = next((tmp_path / "m").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-3] ^= 0x10
    weights.write_bytes(data)
    with pytest.raises(SettingsError, match=f"{weights.name} has sha256 .* its manifest.json says"):
        saving.load_model(str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b"[]", "expected a JSON object"),
        (b"[" * 50_000, "nested"),
        (b'{"model_type": "llava", "text_config": {"num_hidden_layers": -1}}', "num_hidden_layers: found -1"),
        (b'{"model_type": "llava", "text_config": {"hidden_size": 1e999}}', "1e999"),
        (b'{"model_type": "llava", "vision_config": {"image_size": "336"}}', "image_size: found '336'"),
    ],
)
def test_a_hostile_config_is_refused_with_a_message(text: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(UserError, match=said):
        saving.load_model(str(tmp_path))
    with pytest.raises(UserError, match=said):
        sources.text_config(str(tmp_path))
