"""Base models of a published shape with random weights, and rows over random images, in the files' own layouts."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

TOKENIZER = Path(__file__).resolve().parents[2] / "demo" / "base" / "llama"
COLOURS = ("red", "green", "blue", "white")
WORDS = (*COLOURS, "circle", "square", "star", "cross", "ring", "large", "small", "top", "left", "right", "center")
IMAGES = 192


@dataclass(frozen=True)
class Size:
    """What is built: configurations of tower and language model, and the lengths of rows."""

    tower: dict[str, Any]
    text: dict[str, Any]
    image_side: tuple[int, int] = (640, 480)


_TOY_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "patch_size": 8,
    "image_size": 48,
    "projection_dim": 16,
}
_TOY_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "vocab_size": 800,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}


def size_of(name: str) -> Size:
    """`toy` for trying the benchmark out, `7b` and `13b` as published."""
    from llava.planning import published

    if name == "toy":
        return Size(_TOY_TOWER, _TOY_TEXT, (64, 48))
    text = published.LANGUAGE_MODELS[f"lmsys/vicuna-{name}-v1.5"]
    return Size(published.TOWERS["openai/clip-vit-large-patch14-336"], text)


@torch.no_grad()
def _random(model: Any, device: torch.device, seed: int) -> Any:
    """Weights as initialised models have them, drawn on the device: 7 B numbers take minutes on a host."""
    model = model.to_empty(device=device)
    generator = torch.Generator(device=device).manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 0.02, generator=generator)
        else:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    for name, buffer in model.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1], device=device).expand_as(buffer))
    return model


def write_base_models(folder: Path, size: Size, device: torch.device) -> None:
    """`folder/clip` and `folder/llama`: hub directories, bf16, with the demo's tokenizer."""
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        CLIPVisionModel,
        LlamaConfig,
        LlamaForCausalLM,
    )

    with torch.device("meta"):
        tower = CLIPVisionModel._from_config(CLIPVisionConfig(**size.tower), dtype=torch.bfloat16)
        text = LlamaForCausalLM._from_config(
            LlamaConfig(**size.text, bos_token_id=1, eos_token_id=2), dtype=torch.bfloat16
        )
    side = size.tower["image_size"]
    _random(tower, device, 0).save_pretrained(folder / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(
        folder / "clip"
    )
    _random(text, device, 1).save_pretrained(folder / "llama", max_shard_size="4GB")
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(folder / "llama")


def write_images(folder: Path, side: tuple[int, int]) -> list[str]:
    """JPEG files with photograph-like detail (smoothed noise), so that decoding costs what it costs."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    names = []
    for index in range(IMAGES):
        small = rng.integers(0, 256, (side[1] // 4, side[0] // 4, 3), dtype=np.uint8)
        held = io.BytesIO()
        Image.fromarray(small).resize(side, Image.Resampling.BICUBIC).save(held, "JPEG", quality=88)
        names.append(f"{index:06d}.jpg")
        (folder / names[-1]).write_bytes(held.getvalue())
    return names


def write_rows(path: Path, names: list[str], count: int, stage: str) -> None:
    """Rows as long as `llava plan` takes the published files' to be: 24 and 256 text tokens, 22 and 128 trained."""
    rng = np.random.default_rng(1)

    def words(tokens: int) -> str:
        return " ".join(rng.choice(WORDS, max(1, tokens)))

    rows = []
    for index in range(count):
        stretch = float(rng.uniform(0.4, 1.6))
        if stage == "pretrain":
            turns = [("human", "<image>"), ("gpt", words(round(21 * stretch)))]
        else:
            turns = [("human", f"<image>\n{words(round(50 * stretch))}"), ("gpt", words(round(63 * stretch)))]
            turns += [("human", words(round(20 * stretch))), ("gpt", words(round(63 * stretch)))]
        conversation = [{"from": who, "value": text} for who, text in turns]
        rows.append({"id": str(index), "image": names[index % len(names)], "conversations": conversation})
    path.write_text(json.dumps(rows))


def write_recipe(path: Path, folder: Path) -> None:
    """The published 7B recipe over the written base models."""
    import yaml

    from llava.config import load_recipe

    models = {"model.vision_tower": str(folder / "clip"), "model.language_model": str(folder / "llama")}
    path.write_text(yaml.safe_dump(load_recipe("llava-v1.5-7b", models).model_dump(mode="json")))
