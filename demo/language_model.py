"""The demo's stand-in for Vicuna: a small Llama, taught to read on the world's text (``demo.corpus``), no pictures.

Two lessons: plain text, then plain and blended text in turns, so that it has learnt to take several words from one
position before a projector hands it such positions. No pixel and no feature of a vision tower takes part.

Legend: B documents, T tokens, P blended positions, W words of a position, D width, V vocabulary.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.corpus import BLEND, Span, blended_document, document
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
    steps: int = 1500
    blended_steps: int = 1200
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


@dataclass(frozen=True)
class Batch:
    """Documents of one kind; ``words_BPW`` holds the token ids of the blended positions, or is None."""

    ids_BT: torch.Tensor
    weights_BT: torch.Tensor
    words_BPW: torch.Tensor | None


def text_batch(
    rng: np.random.Generator, tokenizer: PreTrainedTokenizerFast, size: int, forbidden: Collection[Signature]
) -> Batch:
    """Documents of plain text."""
    return _pad([encode_document(document(rng, forbidden), tokenizer) for _ in range(size)], tokenizer, None)


def blended_batch(
    rng: np.random.Generator, tokenizer: PreTrainedTokenizerFast, size: int, forbidden: Collection[Signature]
) -> Batch:
    """Documents whose scene is told blended. ``tokenizer`` must know ``BLEND`` as one token."""
    drawn = [blended_document(rng, forbidden) for _ in range(size)]
    words = [[tokenizer(position, add_special_tokens=False).input_ids for position in told] for _, told in drawn]
    most = max(len(ids) for told in words for ids in told)
    words_BPW = torch.tensor([[ids + [tokenizer.pad_token_id] * (most - len(ids)) for ids in told] for told in words])
    return _pad([encode_document(spans, tokenizer) for spans, _ in drawn], tokenizer, words_BPW)


def _pad(
    rows: list[tuple[list[int], list[float]]], tokenizer: PreTrainedTokenizerFast, words_BPW: torch.Tensor | None
) -> Batch:
    longest = max(len(ids) for ids, _ in rows)
    ids_BT = torch.full((len(rows), longest), tokenizer.pad_token_id, dtype=torch.long)
    weights_BT = torch.zeros(len(rows), longest)
    blend = tokenizer.convert_tokens_to_ids(BLEND) if words_BPW is not None else None
    for row, (ids, weights) in enumerate(rows):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
        weights_BT[row, : len(weights)] = torch.tensor(weights)
    if blend is not None:
        weights_BT[ids_BT == blend] = 0.0  # not a word that could be predicted
    return Batch(ids_BT, weights_BT, words_BPW)


def embed(model: LlamaForCausalLM, batch: Batch, blend_id: int, pad_id: int, noise: float = 0.0) -> torch.Tensor:
    """Embeddings of a batch, ``(B, T, D)``: a blended position is the sum of its words' embeddings over sqrt(words).

    ``noise`` times the embeddings' spread is added to blended positions, so that near ones will do later.
    """
    table = model.get_input_embeddings()
    if batch.words_BPW is None:
        return table(batch.ids_BT)
    blended_BT = batch.ids_BT == blend_id
    plain_BTD = table(batch.ids_BT.masked_fill(blended_BT, pad_id))
    known_BPW1 = (batch.words_BPW != pad_id).unsqueeze(-1).float()
    sums_BPD = (table(batch.words_BPW) * known_BPW1).sum(2) / known_BPW1.sum(2).sqrt()
    sums_BPD = sums_BPD + noise * table.weight.detach().std() * torch.randn_like(sums_BPD)
    return plain_BTD.masked_scatter(blended_BT.unsqueeze(-1), sums_BPD)


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
    _lesson("text", model, tokenizer, rng, plan, plan.steps, forbidden)
    _lesson("blended text", model, _knowing_blends(tokenizer), rng, plan, plan.blended_steps, forbidden)
    return model.eval(), tokenizer


def _knowing_blends(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A copy that knows ``BLEND`` as one token; neither the model nor the tokenizer we keep has a place for it."""
    copied = copy.deepcopy(tokenizer)
    copied.add_tokens([BLEND], special_tokens=True)
    return copied


def _lesson(
    name: str,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rng: np.random.Generator,
    plan: LanguageModelPlan,
    steps: int,
    forbidden: Collection[Signature],
) -> None:
    """Train for ``steps`` steps under one cosine; where the tokenizer knows blends, three steps of four are blended."""
    blend_id = tokenizer.get_vocab().get(BLEND, -1)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, steps, plan.warmup))
    model.train()
    started = time.monotonic()
    for step in range(steps):
        make = blended_batch if blend_id >= 0 and step % 4 else text_batch
        batch = make(rng, tokenizer, plan.batch, forbidden)
        embedded_BTD = embed(model, batch, blend_id, tokenizer.pad_token_id, noise=0.5)
        logits_BTV = model(inputs_embeds=embedded_BTD, use_cache=False).logits
        weights_N = batch.weights_BT[:, 1:].flatten()
        targets_N = batch.ids_BT[:, 1:].flatten().masked_fill(weights_N == 0, tokenizer.pad_token_id)
        losses_N = functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), targets_N, reduction="none")
        loss = (losses_N * weights_N).sum() / weights_N.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 in (0, 1) or step == steps - 1:
            answers_N = weights_N == 1.0
            right_N = logits_BTV[:, :-1].flatten(0, 1).argmax(-1) == targets_N
            print(
                f"language model, {name}: step {step + 1}/{steps}, loss {loss.item():.3f}, "
                f"answer tokens right {right_N[answers_N].float().mean().item():.3f}, "
                f"{time.monotonic() - started:.0f} s",
                flush=True,
            )


def save_language_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write an ordinary hub directory."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
