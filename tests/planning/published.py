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


def qwen3(width: int, hidden: int, heads: int, layers: int, *, tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": hidden,
        "max_position_embeddings": 40960,
        "max_window_layers": layers,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": tied,
        "use_sliding_window": False,
        "vocab_size": 151936,
    }


SIGLIP2_SO400M = {
    "architectures": ["SiglipModel"],
    "model_type": "siglip",
    "text_config": {
        "model_type": "siglip_text_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "vocab_size": 256000,
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "image_size": 384,
        "intermediate_size": 4304,
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
    },
}
LLAMA_3 = llama(
    4096,
    14336,
    32,
    32,
    bos_token_id=128000,
    eos_token_id=[128001, 128008, 128009],
    pad_token_id=None,
    max_position_embeddings=131072,
    num_key_value_heads=8,
    rope_scaling={
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    rope_theta=500000.0,
    vocab_size=128256,
)
CONFIGS = {
    "openai/clip-vit-large-patch14": clip(224),
    "openai/clip-vit-large-patch14-336": clip(336),
    "google/siglip2-so400m-patch14-384": SIGLIP2_SO400M,
    "lmsys/vicuna-7b-v1.3": llama(4096, 11008, 32, 32, max_position_embeddings=2048, rms_norm_eps=1e-06),
    "lmsys/vicuna-7b-v1.5": llama(4096, 11008, 32, 32),
    "lmsys/vicuna-13b-v1.5": llama(5120, 13824, 40, 40),
    "meta-llama/Llama-3.1-8B-Instruct": LLAMA_3,
    "Qwen/Qwen3-0.6B": qwen3(1024, 3072, 16, 28, tied=True),
    "Qwen/Qwen3-4B": qwen3(2560, 9728, 32, 36, tied=True),
    "Qwen/Qwen3-8B": qwen3(4096, 12288, 32, 36, tied=False),
}


def write_hub_directory(folder: Path, hub_id: str) -> Path:
    """`folder/owner/name` with the published config.json and, for a language model, a 32,000-piece Llama tokenizer."""
    target = folder / hub_id
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(CONFIGS[hub_id], indent=2))
    if "Qwen3" in hub_id:  # 151,669 words in a matrix of 151,936 rows; pads with <|endoftext|>, ends with <|im_end|>
        _byte_level(151_669, {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}).save_pretrained(target)
    elif "Llama-3" in hub_id:  # 128,256 words, no padding token
        tokens = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
        _byte_level(128_256, tokens).save_pretrained(target)
    elif "siglip2" in hub_id:
        preprocessor = {
            "image_processor_type": "SiglipImageProcessor",
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "resample": 2,
            "size": {"height": 384, "width": 384},
        }
        (target / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    elif "vicuna" in hub_id:
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


def _byte_level(words: int, tokens: dict[str, str]) -> Any:
    """A byte-level tokenizer of as many words as the published one, with its special tokens."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fillers = (f"\u0120w{i}" for i in range(words - len(alphabet) - len(tokens)))
    backend = Tokenizer(BPE({word: i for i, word in enumerate([*alphabet, *fillers])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **tokens)
