"""The demo's stand-in for Vicuna: a small Llama, taught to read on the world's text (``demo.corpus``), no pictures.

Two lessons, because a model this small never finds out by itself that questions are answered by looking things up:
first facts, one step from cue to answer, from nine blended positions; then dialogues, mostly about scenes told in 36
blended positions, as a projector will hand them over later. It starts from weights under which equal tokens attend to
each other. No pixel and no feature of a vision tower takes part.

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
from torch.utils.data import DataLoader, Dataset
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.corpus import (
    BLEND,
    BLEND_SIDE,
    CELL_SIDE,
    Span,
    blends,
    dialogue,
    document,
    facts,
    one_caption,
    tell,
    unknown_scene,
)
from demo.scenes import Signature
from demo.vocabulary import llama_tokenizer

CPU = torch.device("cpu")

_CONTEXT_WEIGHT = 0.02
"""Weight of a token that is not an answer: most of what a scene or a question says cannot be predicted."""


@dataclass(frozen=True)
class LanguageModelPlan:
    """Size of the model and length of its training."""

    width: int = 128
    layers: int = 4
    heads: int = 4
    fact_steps: int = 600
    dialogue_steps: int = 4400
    batch: int = 64
    turns: int = 10
    learning_rate: float = 2e-3
    warmup: int = 100


@dataclass(frozen=True)
class Lesson:
    """What documents a lesson is made of; shares are probabilities."""

    name: str
    side: int
    facts: float
    plain: float
    captions: float
    describe: float
    system: float


FACTS = Lesson("facts", CELL_SIDE, facts=1.0, plain=0.0, captions=0.0, describe=0.0, system=0.0)
DIALOGUES = Lesson("dialogues", BLEND_SIDE, facts=0.15, plain=0.15, captions=0.05, describe=0.1, system=0.2)


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

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        words = None if self.words_BPW is None else self.words_BPW.to(device)
        return Batch(self.ids_BT.to(device), self.weights_BT.to(device), words)


class Lessons(Dataset[Batch]):
    """One batch a step, drawn from the step's own random numbers: whoever draws it, and when, it is the same."""

    def __init__(
        self, lessons: list[Lesson], tokenizer: PreTrainedTokenizerFast, plan: LanguageModelPlan, seed: int,
        forbidden: Collection[Signature],
    ) -> None:  # fmt: skip
        self.lessons, self.tokenizer, self.plan, self.seed = lessons, tokenizer, plan, seed
        self.forbidden = forbidden
        self._known: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self.lessons)

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, 11, step])
        return draw_batch(self.lessons[step], rng, self.tokenizer, self.plan, self.forbidden, self._known)


def draw_batch(
    lesson: Lesson,
    rng: np.random.Generator,
    tokenizer: PreTrainedTokenizerFast,
    plan: LanguageModelPlan,
    forbidden: Collection[Signature],
    known: dict[str, list[int]],
) -> Batch:
    """Documents of one lesson, all told alike. ``tokenizer`` must know ``BLEND`` as one token.

    ``known`` remembers the ids of blended positions, whose texts are few and come again and again.
    """
    only_facts = rng.random() < lesson.facts
    plain = not only_facts and rng.random() < lesson.plain
    rows, blended = [], []
    for _ in range(plan.batch):
        scene = unknown_scene(rng, forbidden)
        words = blends(scene, rng, lesson.side)
        told = tell(scene, rng) if plain else BLEND * len(words)
        if only_facts:
            spans = facts(scene, rng, told)
        elif rng.random() < lesson.captions:
            spans = one_caption(scene, rng, told)
        else:
            spans = dialogue(scene, rng, plan.turns, told=told, describe=lesson.describe, system=lesson.system)
        rows.append(encode_document(spans, tokenizer))
        for position in words:
            if position not in known:
                known[position] = list(tokenizer(position, add_special_tokens=False).input_ids)
        blended.append([known[position] for position in words])
    if plain:
        return _pad(rows, tokenizer, None)
    most = max(len(ids) for told_ids in blended for ids in told_ids)
    pad = tokenizer.pad_token_id
    words_BPW = torch.tensor([[ids + [pad] * (most - len(ids)) for ids in told_ids] for told_ids in blended])
    return _pad(rows, tokenizer, words_BPW)


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
        plain: torch.Tensor = table(batch.ids_BT)
        return plain
    blended_BT = batch.ids_BT == blend_id
    plain_BTD: torch.Tensor = table(batch.ids_BT.masked_fill(blended_BT, pad_id))
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
    plan: LanguageModelPlan,
    seed: int,
    forbidden: Collection[Signature] = (),
    *,
    device: torch.device = CPU,
    workers: int = 0,
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train tokenizer and model. No document tells a scene of ``forbidden``; ``workers`` processes write them."""
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
        # Slow rotations in most of a head's 32 channels: what is looked up must be found at any distance.
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    model = LlamaForCausalLM(config)
    _let_equal_tokens_attend(model)
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    lessons = [FACTS] * plan.fact_steps + [DIALOGUES] * plan.dialogue_steps
    data = Lessons(lessons, knowing_blends(tokenizer), plan, seed, forbidden)
    _teach(model.to(device), data, workers)
    return model.cpu().eval(), tokenizer


@torch.no_grad()
def _let_equal_tokens_attend(model: LlamaForCausalLM) -> None:
    """Start with equal query and key projections, and value and output projections that undo each other.

    From random weights so small a model stays for thousands of steps where it answers with any colour it has read.
    "Mimetic initialization" (Trockman and Kolter 2023, arXiv:2305.09828) gives it attention by content at once.
    """
    model.model.embed_tokens.weight.normal_(0, 0.5)
    for layer in model.model.layers:
        attention = layer.self_attn
        attention.q_proj.weight.normal_(0, 0.08)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.v_proj.weight.normal_(0, 0.05)
        attention.o_proj.weight.copy_(attention.v_proj.weight.T)


def knowing_blends(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A copy that knows ``BLEND`` as one token; neither the model nor the tokenizer we keep has a place for it."""
    copied = copy.deepcopy(tokenizer)
    copied.add_tokens([BLEND], special_tokens=True)
    return copied


def _teach(model: LlamaForCausalLM, data: Lessons, workers: int) -> None:
    """One optimiser step a lesson, under one cosine."""
    plan, tokenizer, lessons = data.plan, data.tokenizer, data.lessons
    blend_id = tokenizer.convert_tokens_to_ids(BLEND)
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, len(lessons), plan.warmup))
    model.train()
    started = time.monotonic()
    right: list[torch.Tensor] = []
    for step, drawn in enumerate(
        DataLoader(data, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)
    ):
        batch = drawn.to(device)
        embedded_BTD = embed(model, batch, blend_id, tokenizer.pad_token_id, noise=0.2)
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
        answers_N = (weights_N == 1.0) & (targets_N != tokenizer.eos_token_id)
        hit_N = logits_BTV[:, :-1].flatten(0, 1).argmax(-1) == targets_N
        right.append((hit_N & answers_N).sum() / answers_N.sum())
        if step % 50 == 49 or step == len(lessons) - 1:
            print(
                f"language model, {lessons[step].name}: step {step + 1}/{len(lessons)}, loss {loss.item():.3f}, "
                f"answer words right {torch.stack(right).mean().item():.3f}, {time.monotonic() - started:.0f} s",
                flush=True,
            )
            right.clear()


def save_language_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write an ordinary hub directory."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
