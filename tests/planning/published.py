"""config.json files as published on the hub, for tests that have no hub. What is not listed is default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CLIP_L_VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-05,
}
CLIP_L_TEXT = {
    "model_type": "clip_text_model",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "projection_dim": 768,
}


def clip(image_size: int) -> dict[str, Any]:
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": 768,
        "logit_scale_init_value": 2.6592,
        "text_config": CLIP_L_TEXT,
        "vision_config": {**CLIP_L_VISION, "image_size": image_size},
    }


def llama(width: int, hidden: int, heads: int, layers: int, **more: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": hidden,
        "max_position_embeddings": 4096,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": heads,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": 32000,
        **more,
    }


CONFIGS = {
    "openai/clip-vit-large-patch14": clip(224),
    "openai/clip-vit-large-patch14-336": clip(336),
    "lmsys/vicuna-7b-v1.3": llama(4096, 11008, 32, 32, max_position_embeddings=2048, rms_norm_eps=1e-06),
    "lmsys/vicuna-7b-v1.5": llama(4096, 11008, 32, 32),
    "lmsys/vicuna-13b-v1.5": llama(5120, 13824, 40, 40),
}


def write_hub_directory(folder: Path, hub_id: str) -> Path:
    """`folder/owner/name` with the published config.json and, for a language model, a 32,000-piece Llama tokenizer."""
    target = folder / hub_id
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(CONFIGS[hub_id], indent=2))
    if "vicuna" in hub_id:
        from transformers import LlamaTokenizer

        specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        pieces = [*specials, *(f"▁w{i}" for i in range(32000 - len(specials)))]
        LlamaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], legacy=False).save_pretrained(
            target
        )
    else:
        crop = CONFIGS[hub_id]["vision_config"]["image_size"]
        (target / "preprocessor_config.json").write_text(
            json.dumps(
                {
                    "crop_size": crop,
                    "size": crop,
                    "image_mean": [0.48145466, 0.4578275, 0.40821073],
                    "image_std": [0.26862954, 0.26130258, 0.27577711],
                    "resample": 3,
                    "image_processor_type": "CLIPImageProcessor",
                }
            )
        )
    return target
