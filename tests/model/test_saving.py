"""Checkpoints: hub keys, loaded by stock code in a fresh process, whole or refused."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from llava import storage
from llava.model import lora, saving
from llava.model.forward import supervised_logits
from tests.model.batches import make_row, packed
from tests.model.test_lora import adapted

Built = Callable[..., tuple[Any, Any]]
GOLDEN = Path(__file__).parent / "golden_hub_keys.json"


def keys_of(folder: Path) -> list[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return sorted(file.keys())


def test_saved_keys_are_the_hubs(built: Built, tmp_path: Path) -> None:
    """The golden list: the layout of llava-hf/llava-1.5-7b-hf (2 language layers, 3 tower layers)."""
    model, processor = built()
    saving.save_model(model, processor, str(tmp_path / "m"))
    assert keys_of(tmp_path / "m") == json.loads(GOLDEN.read_text())["llava"]


@pytest.mark.slow
@pytest.mark.parametrize("after", ["stock load", "lora", "our load"])
def test_keys_stay_the_hubs_whatever_came_before(after: str, built: Built, tmp_path: Path) -> None:
    from transformers import LlavaForConditionalGeneration

    model, processor = adapted(built) if after == "lora" else built()
    if after != "lora":
        saving.save_model(model, processor, str(tmp_path / "first"))
        load = saving.load_model if after == "our load" else LlavaForConditionalGeneration.from_pretrained
        model = load(str(tmp_path / "first"))
    saving.save_model(model, processor, str(tmp_path / "m"))
    assert keys_of(tmp_path / "m") == json.loads(GOLDEN.read_text())["llava"]


def test_a_saved_model_caches_when_it_is_served(built: Built, tmp_path: Path) -> None:
    """Training turns the key/value cache off, in the language model's part of the configuration, which Llama reads."""
    model, processor = built("llama")
    assert model.config.text_config.use_cache is False
    saving.save_model(model, processor, str(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text())["text_config"].get("use_cache", True) is True
    assert model.config.text_config.use_cache is False, "and the model at hand stays as it was"


FRESH = """
import json, sys
import numpy as np, torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration
model, report = LlavaForConditionalGeneration.from_pretrained(sys.argv[1], output_loading_info=True)
processor = AutoProcessor.from_pretrained(sys.argv[1])
image = Image.fromarray(np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3))
prompt = processor.apply_chat_template([{"role": "user", "content": "USER: <image>\\nWhat is shown? ASSISTANT:"}])
inputs = processor(images=image, text=prompt, return_tensors="pt")
out = model.generate(**inputs, max_new_tokens=8, do_sample=False)
assert not any(name == "llava" or name.startswith("llava.") for name in sys.modules), "our code was imported"
print(json.dumps({"report": {k: sorted(map(str, v)) for k, v in report.items()}, "ids": inputs.input_ids[0].tolist(),
                  "pixels": float(inputs.pixel_values.double().sum()), "out": out[0].tolist(),
                  "padded": inputs.pixel_values[0, 0, 0, 0].item(), "use_cache": model.config.text_config.use_cache}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_fresh_process_without_our_code_gives_the_same_answer(family: str, built: Built, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    model, processor = adapted(built, family)
    folder = tmp_path / "m"
    saving.save_model(model, processor, str(folder))
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(folder)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    fresh = json.loads(done.stdout.splitlines()[-1])
    assert not any(fresh["report"].values()), fresh["report"]
    assert fresh["use_cache"] is True
    image = Image.fromarray(np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3))
    inputs = processor(images=image, text="USER: <image>\nWhat is shown? ASSISTANT:", return_tensors="pt")
    assert fresh["ids"] == inputs.input_ids[0].tolist()
    assert fresh["ids"].count(model.config.image_token_index) == 16
    assert fresh["pixels"] == float(inputs.pixel_values.double().sum())
    lora.merge(model)
    with torch.no_grad():
        ours = model.generate(**inputs, max_new_tokens=8, do_sample=False, use_cache=True)
    assert fresh["out"] == ours[0].tolist()


def test_our_load_gives_the_same_model(built: Built, tmp_path: Path) -> None:
    model, processor = built()
    saving.save_model(model, processor, str(tmp_path / "m"))
    again = saving.load_model(str(tmp_path / "m"))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    batch = packed([make_row(model, text=9, seed=1), make_row(model, text=12, seed=2)])
    with torch.no_grad():
        assert torch.equal(supervised_logits(model, batch), supervised_logits(again, batch))


def test_a_model_is_read_on_a_cpu_without_accelerate(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the export image, whose lock does not have it."""
    import transformers.integrations.accelerate as integration

    model, processor = built()
    saving.save_model(model, processor, str(tmp_path / "m"))
    monkeypatch.setattr(integration, "is_accelerate_available", lambda *args, **kwargs: False)
    again = saving.load_model(str(tmp_path / "m"), dtype=torch.float32)
    assert {parameter.device.type for parameter in again.parameters()} == {"cpu"}


def test_shards_and_dtype(built: Built, tmp_path: Path) -> None:
    model, processor = built()
    saving.save_model(model, processor, str(tmp_path / "m"), shard_bytes=60_000, dtype=torch.bfloat16)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert sorted(index["weight_map"]) == json.loads(GOLDEN.read_text())["llava"]
    assert index["metadata"]["total_size"] == 2 * sum(p.numel() for p in model.parameters())
    again = saving.load_model(str(tmp_path / "m"))
    assert again.dtype == torch.bfloat16
    assert torch.equal(again.lm_head.weight, model.lm_head.weight.bfloat16())


def test_nothing_of_this_machine_is_in_the_files(built: Built, tmp_path: Path, tiny_clip_dir: Path) -> None:
    model, processor = built()
    saving.save_model(model, processor, str(tmp_path / "m"))
    for path in (tmp_path / "m").iterdir():
        assert str(tiny_clip_dir.parent).encode() not in path.read_bytes(), path.name
    assert json.loads((tmp_path / "m" / "config.json").read_text())["model_type"] == "llava"
    assert "llava_packed" not in (tmp_path / "m" / "config.json").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["m"], "scratch left behind"


@pytest.mark.slow
def test_to_and_from_object_storage(built: Built, rclone_s3: Any) -> None:
    model, processor = built()
    saving.save_model(model, processor, f"{rclone_s3.uri}/run/model")
    again = saving.load_model(f"{rclone_s3.uri}/run/model")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    saving.save_projector(model, f"{rclone_s3.uri}/run/projector")
    saving.load_projector(again, f"{rclone_s3.uri}/run/projector")


def test_tied_embeddings_are_written_once(built: Built, tmp_path: Path) -> None:
    model, processor = built("qwen2")
    saving.save_model(model, processor, str(tmp_path / "m"))
    assert "language_model.lm_head.weight" not in keys_of(tmp_path / "m")
    again = saving.load_model(str(tmp_path / "m"))
    assert again.lm_head.weight is again.get_input_embeddings().weight
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


def test_tensors_are_gathered_one_after_the_other(built: Built, tmp_path: Path) -> None:
    model, processor = built()
    held: list[int] = []

    @contextlib.contextmanager
    def gather(tensors: Sequence[torch.Tensor]) -> Iterator[None]:
        assert not held, "the one before is still whole"
        held.append(sum(tensor.numel() for tensor in tensors))
        yield
        seen.append(held.pop())

    seen: list[int] = []
    saving.save_model(model, processor, str(tmp_path / "m"), gather=gather)
    assert max(seen) == max(parameter.numel() for parameter in model.parameters())
    as_written, seen = seen, []
    saving.save_model(model, processor, str(tmp_path / "none"), gather=gather, write=False)
    assert seen == as_written and not (tmp_path / "none").exists()  # all ranks gather the same, one writes
    again = saving.load_model(str(tmp_path / "m"))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.parametrize("place", ["disk", "store"])
def test_one_weight_file_exists_beside_its_place_at_a_time(
    place: str, built: Built, tmp_path: Path, rclone_s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = built()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    at_once: list[int] = []
    real = storage.upload

    def upload(local: Path, uri: str) -> None:
        at_once.append(len(list(scratch.rglob("*.safetensors"))))
        real(local, uri)

    monkeypatch.setattr(storage, "upload", upload)
    target = f"{rclone_s3.uri}/run/model" if place == "store" else str(tmp_path / "m")
    saving.save_model(model, processor, target, shard_bytes=60_000)
    if place == "store":
        assert len(at_once) > 3 and max(at_once) == 1 and at_once[-1] == 0
    else:
        assert all(path.stat().st_mode & 0o044 for path in (tmp_path / "m").glob("*"))  # others may read them
    again = saving.load_model(target)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
