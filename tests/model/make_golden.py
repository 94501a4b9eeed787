"""Writes golden_hub_keys.json by the published layout's rules, not by our code: `python -m tests.model.make_golden`."""

from __future__ import annotations

import json
from pathlib import Path


def hub_keys(tower_layers: int, language_layers: int) -> list[str]:
    """Keys of llava-hf/llava-1.5-7b-hf's safetensors, for other numbers of layers."""
    keys = [
        "language_model.lm_head.weight",
        "language_model.model.embed_tokens.weight",
        "language_model.model.norm.weight",
    ]
    for i in range(language_layers):
        layer = f"language_model.model.layers.{i}"
        keys += [f"{layer}.{norm}.weight" for norm in ("input_layernorm", "post_attention_layernorm")]
        keys += [f"{layer}.self_attn.{p}_proj.weight" for p in "qkvo"]
        keys += [f"{layer}.mlp.{p}_proj.weight" for p in ("gate", "up", "down")]
    tower = "vision_tower.vision_model"
    keys += [f"{tower}.embeddings.class_embedding", f"{tower}.embeddings.patch_embedding.weight"]
    keys += [f"{tower}.embeddings.position_embedding.weight"]
    both = ("weight", "bias")
    keys += [f"{tower}.{norm}.{part}" for norm in ("pre_layrnorm", "post_layernorm") for part in both]
    for i in range(tower_layers):
        layer = f"{tower}.encoder.layers.{i}"
        keys += [f"{layer}.self_attn.{p}_proj.{part}" for p in ("q", "k", "v", "out") for part in both]
        keys += [
            f"{layer}.{name}.{part}" for name in ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2") for part in both
        ]
    keys += [f"multi_modal_projector.linear_{i}.{part}" for i in (1, 2) for part in both]
    return sorted(keys)


if __name__ == "__main__":
    llava = hub_keys(tower_layers=3, language_layers=2)
    golden = {"llava": llava, "llava_next": sorted([*llava, "image_newline"])}
    (Path(__file__).parent / "golden_hub_keys.json").write_text(json.dumps(golden, indent=1) + "\n")
