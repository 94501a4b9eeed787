"""The demo's stand-in for CLIP: a small ``transformers.CLIPModel`` trained on scenes and captions.

Two losses on the same pairs, as in CoCa (Yu et al. 2022, arXiv:2205.01917): CLIP's contrastive one, and that of a
captioner which reads the patch features LLaVA will use later (``hidden_states[-2]`` without CLS) by cross-attention.
A contrastive loss alone says little about single patches; the captioner, thrown away after training, makes them carry
colour, kind, size and place. Nothing but pixels and captions is used.

Legend: B pairs, P patches, D width, T text tokens, H, W pixels, V vocabulary.
"""

from __future__ import annotations

import io
import time
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from demo.captions import caption, five_captions
from demo.language_model import CPU, cosine
from demo.scenes import COLOURS, KINDS, PLACES, SIZES, Scene, Signature, jpeg_bytes, render, sample_scene
from demo.vocabulary import CLIP_CONTEXT, clip_tokenizer

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ClipPlan:
    """Size of the model and length of its training."""

    resolution: int = 48
    patch: int = 8
    width: int = 96
    layers: int = 4
    heads: int = 4
    text_layers: int = 2
    projection: int = 64
    scenes: int = 24000
    steps: int = 4000
    batch: int = 128
    learning_rate: float = 2e-3
    warmup: int = 100


class Captioner(nn.Module):
    """Writes a caption from patch features: a causal decoder with cross-attention. Only used in training."""

    def __init__(self, width: int, heads: int, layers: int, vocabulary: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(CLIP_CONTEXT, width) * 0.02)
        layer = nn.TransformerDecoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, layers, norm=nn.LayerNorm(width))
        self.memory_norm = nn.LayerNorm(width)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, ids_BT: torch.Tensor, patches_BPD: torch.Tensor) -> torch.Tensor:
        """Logits of the next token, ``(B, T, V)``."""
        length = ids_BT.shape[1]
        causal_TT = nn.Transformer.generate_square_subsequent_mask(length, device=ids_BT.device)
        hidden_BTD = self.tokens(ids_BT) + self.positions[:length]
        hidden_BTD = self.decoder(hidden_BTD, self.memory_norm(patches_BPD), tgt_mask=causal_TT, tgt_is_causal=True)
        return functional.linear(hidden_BTD, self.tokens.weight)


def as_seen(scene: Scene, rng: np.random.Generator, resolution: int) -> np.ndarray:
    """The scene as the tower will see it, ``(H, W, 3)`` uint8: rendered, through JPEG, resized as by the processor."""
    picture = Image.open(io.BytesIO(jpeg_bytes(render(scene, rng))))
    return np.asarray(picture.resize((resolution, resolution), Image.Resampling.BICUBIC))


class _Drawn(Dataset[np.ndarray]):
    """Scenes as the tower will see them, each from random numbers of its own: whoever draws it, it is the same."""

    def __init__(self, scenes: list[Scene], seed: int, resolution: int) -> None:
        self.scenes, self.seed, self.resolution = scenes, seed, resolution

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, 13, index])
        return as_seen(self.scenes[index], rng, self.resolution)


def normalised(pixels_BHW3: torch.Tensor) -> torch.Tensor:
    """uint8 pixels as the image processor hands them on, ``(B, 3, H, W)`` float32."""
    scaled_B3HW = pixels_BHW3.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(part, device=scaled_B3HW.device).view(1, 3, 1, 1) for part in (CLIP_MEAN, CLIP_STD))
    return (scaled_B3HW - mean) / std


def _vocabulary_texts() -> list[str]:
    """Sentences that hold every word of the captions."""
    rng = np.random.default_rng(0)
    texts = [text for _ in range(300) for text in five_captions(sample_scene(rng), rng)]
    return [*texts, " ".join([*COLOURS, *KINDS, *PLACES, *SIZES])] * 2


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    return encoded.input_ids, encoded.attention_mask


def build_clip(plan: ClipPlan, tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    """An untrained CLIP of the planned size."""
    shared = {"num_attention_heads": plan.heads, "hidden_size": plan.width, "intermediate_size": 4 * plan.width}
    config = CLIPConfig(
        text_config={
            **shared,
            "num_hidden_layers": plan.text_layers,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": CLIP_CONTEXT,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "projection_dim": plan.projection,
        },
        vision_config={
            **shared,
            "num_hidden_layers": plan.layers,
            "image_size": plan.resolution,
            "patch_size": plan.patch,
            "projection_dim": plan.projection,
        },
        projection_dim=plan.projection,
    )
    return CLIPModel(config)


def train_clip(
    plan: ClipPlan, seed: int, forbidden: Collection[Signature] = (), *, device: torch.device = CPU, workers: int = 0
) -> tuple[CLIPModel, PreTrainedTokenizerFast]:
    """Train tokenizer and model on ``plan.scenes`` pictures, none of which shows a scene of ``forbidden``.

    ``workers`` processes draw them.
    """
    rng = np.random.default_rng([seed, 12])
    scenes: list[Scene] = []
    while len(scenes) < plan.scenes:
        if (scene := sample_scene(rng)).signature not in forbidden:
            scenes.append(scene)
    drawn = DataLoader(_Drawn(scenes, seed, plan.resolution), batch_size=256, num_workers=workers, collate_fn=np.stack)
    pixels_NHW3 = torch.from_numpy(np.concatenate(list(drawn))).to(device)
    tokenizer = clip_tokenizer(_vocabulary_texts())
    torch.manual_seed(seed)
    model = build_clip(plan, tokenizer).to(device)
    captioner = Captioner(plan.width, plan.heads, 2, len(tokenizer)).to(device)
    parameters = [*model.parameters(), *captioner.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, plan.steps, plan.warmup))
    model.train()
    started = time.monotonic()
    for step in range(plan.steps):
        rows = [int(row) for row in rng.integers(len(scenes), size=plan.batch)]
        told = [caption(scenes[row], rng, size=True, place=True, count=bool(rng.integers(2))) for row in rows]
        ordered = [caption(scenes[row], rng, size=True, place=True, count=True, shuffled=False) for row in rows]
        ids_BT, mask_BT = (part.to(device) for part in _encode(tokenizer, told))
        vision = model.vision_model(pixel_values=normalised(pixels_NHW3[rows]), output_hidden_states=True)
        text = model.text_model(input_ids=ids_BT, attention_mask=mask_BT)
        image_BE = functional.normalize(model.visual_projection(vision.pooler_output), dim=-1)
        text_BE = functional.normalize(model.text_projection(text.pooler_output), dim=-1)
        similarity_BB = image_BE @ text_BE.T * model.logit_scale.exp().clamp(max=100)
        target_B = torch.arange(plan.batch, device=device)
        contrastive = (
            functional.cross_entropy(similarity_BB, target_B) + functional.cross_entropy(similarity_BB.T, target_B)
        ) / 2
        written_BT, written_mask_BT = (part.to(device) for part in _encode(tokenizer, ordered))
        logits_BTV = captioner(written_BT[:, :-1], vision.hidden_states[-2][:, 1:])
        labels_BT = written_BT[:, 1:].masked_fill(written_mask_BT[:, 1:] == 0, -100)
        writing = functional.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten())
        (contrastive + 2 * writing).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0 or step == plan.steps - 1:
            matched = (similarity_BB.argmax(-1) == target_B).float().mean().item()
            print(
                f"clip: step {step + 1}/{plan.steps}, contrastive {contrastive.item():.3f}, pairs right {matched:.3f}, "
                f"captioner {writing.item():.3f}, {time.monotonic() - started:.0f} s",
                flush=True,
            )
    return model.cpu().eval(), tokenizer
