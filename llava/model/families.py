"""Language models by family: which are supported, and why others are refused before any data is read.

LLaVA's stock class calls the decoder and then the head, and nothing else: whatever a family does between the two
(capping or scaling of logits) would be left out, in training here and by every engine that serves the checkpoint.
Packing needs attention that goes through transformers' interface, with no position that is learnt or stored beyond
the rotation. A family is found by `model_type` in its config.json; each one in the table is held against
transformers' own forward by a test with a small random model (`tests/model/test_families.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llava.errors import SettingsError


@dataclass(frozen=True)
class Family:
    """A supported family.

    Attributes:
        models: what people know it by.
        template: the recipe's `template` that suits its instruction-tuned models.
        lora: linear layers of one of its layers, as `lora.target_modules` names them.
    """

    models: str
    template: str
    lora: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


SUPPORTED: dict[str, Family] = {
    "llama": Family(
        "Llama 2, 3, 3.1, 3.2 (text), Vicuna, TinyLlama, SmolLM, SmolLM2", "v1, llava_llama_2, llava_llama_3, tokenizer"
    ),
    "mistral": Family("Mistral 7B, with or without its sliding window", "mistral_instruct, tokenizer"),
    "qwen2": Family("Qwen 1.5, 2, 2.5", "chatml"),
    "qwen3": Family("Qwen 3 (dense)", "qwen3"),
    "phi3": Family("Phi-3, Phi-3.5, Phi-4 (text)", "tokenizer", ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")),
    "gemma": Family("Gemma 1", "tokenizer"),
    "gemma3_text": Family("Gemma 3, text only (270M, 1B)", "tokenizer"),
    "smollm3": Family("SmolLM3", "chatml"),
    "olmo2": Family("OLMo 2", "tokenizer"),
}

_LEARNT = "its positions are learnt, absolute and as many as its context is long; LLaVA's packs and images do not fit"
_VISION = "it has a vision tower of its own; take its language model alone"
REFUSED: dict[str, str] = {
    "gpt2": _LEARNT,
    "opt": _LEARNT,
    "gpt_neo": _LEARNT,
    "gemma2": "it caps its logits (softcapping) in attention and behind the head, which LLaVA's stock class leaves out",
    "granite": "it scales its logits (logits_scaling), which LLaVA's stock class leaves out",
    "cohere": "it scales its logits (logit_scale), which LLaVA's stock class leaves out",
    "cohere2": "it scales its logits (logit_scale), which LLaVA's stock class leaves out",
    "gemma3": _VISION,
    "llava": _VISION,
    "llava_next": _VISION,
    "mllama": _VISION,
    "qwen2_vl": _VISION,
    "qwen2_5_vl": _VISION,
    "qwen3_vl": _VISION,
    "mamba": "it has no attention; its state would run on from one packed row into the next",
    "mixtral": "it is a mixture of experts, whose balancing loss is not computed here",
    "qwen2_moe": "it is a mixture of experts, whose balancing loss is not computed here",
    "qwen3_moe": "it is a mixture of experts, whose balancing loss is not computed here",
}
_CHANGES_LOGITS = ("final_logit_softcapping", "attn_logit_softcapping", "logits_scaling", "logit_scale")


def check(config: Any, source: str) -> Family:
    """The family of a language model's configuration.

    Raises:
        SettingsError: not supported; the message says why and what is.
    """
    kind = config.model_type
    where = f"model.language_model: {source} is a {kind!r}"
    if kind in REFUSED:
        raise SettingsError(f"{where}: {REFUSED[kind]}; expected one of {', '.join(SUPPORTED)}")
    if kind not in SUPPORTED:
        raise SettingsError(
            f"{where}; expected a causal language model of a family that is tested: {', '.join(SUPPORTED)}"
        )
    for name in _CHANGES_LOGITS:
        value = getattr(config, name, None)
        if value not in (None, 1, 1.0, 0):
            raise SettingsError(f"{where} with {name} {value!r}, which LLaVA's stock class leaves out")
    return SUPPORTED[kind]
