"""The demo's stand-in for Vicuna: a small Llama, taught to read on the world's text (``demo.corpus``), no pictures.

Legend: B documents, T tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.corpus import Span, document
from demo.scenes import Signature
from demo.vocabulary import llama_tokenizer

_CONTEXT_WEIGHT = 0.1
"""Weight of a token that is not an answer: most of what a scene or a question says cannot be predicted."""


@dataclass(frozen=True)
class LanguageModelPlan:
    """Size of the model and length of its training."""

    width: int = 128
    layers: int = 4
    heads: int = 4
    steps: int = 2000
    batch: int = 32
    learning_rate: float = 3e-3
    warmup: int = 60


def encode_document(spans: list[Span], tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[float]]:
    """Token ids of a document, and for each the weight of predicting it (from the spans' character ranges)."""
    text = "".join(span.text for span in spans)
    encoded = tokenizer(text, return_offsets_mapping=True)
    answer_ranges, position = [], 0
    for span in spans:
        if span.answer:
            answer_ranges.append((position, position + len(span.text)))
        position += len(span.text)
    weights = [
        1.0 if stop > start and any(low <= start and stop <= high for low, high in answer_ranges) else _CONTEXT_WEIGHT
        for start, stop in encoded.offset_mapping
    ]
    return list(encoded.input_ids), weights


def _batch(
    rng: np.random.Generator,
    tokenizer: PreTrainedTokenizerFast,
    size: int,
    forbidden: Collection[Signature],
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [encode_document(document(rng, forbidden), tokenizer) for _ in range(size)]
    longest = max(len(ids) for ids, _ in rows)
    ids_BT = torch.full((size, longest), tokenizer.pad_token_id, dtype=torch.long)
    weights_BT = torch.zeros(size, longest)
    for row, (ids, weights) in enumerate(rows):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
        weights_BT[row, : len(weights)] = torch.tensor(weights)
    return ids_BT, weights_BT


def cosine(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate at a step: linear warm-up, then half a cosine down to nothing."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def train_language_model(
    plan: LanguageModelPlan, seed: int, forbidden: Collection[Signature] = ()
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train tokenizer and model. No document tells a scene of ``forbidden``."""
    rng = np.random.default_rng([seed, 11])
    texts = ["".join(span.text for span in document(rng, forbidden)) for _ in range(2000)]
    tokenizer = llama_tokenizer(texts)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=plan.width,
        intermediate_size=round(plan.width * 8 / 3 / 16) * 16,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, plan.steps, plan.warmup))
    model.train()
    started = time.monotonic()
    for step in range(plan.steps):
        ids_BT, weights_BT = _batch(rng, tokenizer, plan.batch, forbidden)
        logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
        losses_N = functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="none")
        weights_N = weights_BT[:, 1:].flatten()
        loss = (losses_N * weights_N).sum() / weights_N.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0 or step == plan.steps - 1:
            answers_N = weights_N == 1.0
            right_N = logits_BTV[:, :-1].flatten(0, 1).argmax(-1) == ids_BT[:, 1:].flatten()
            print(
                f"language model: step {step + 1}/{plan.steps}, loss {loss.item():.3f}, "
                f"answer tokens right {right_N[answers_N].float().mean().item():.3f}, "
                f"{time.monotonic() - started:.0f} s",
                flush=True,
            )
    return model.eval(), tokenizer


def save_language_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write an ordinary hub directory."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
