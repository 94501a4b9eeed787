"""Recomputed layers give the same gradients and keep less."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from llava.config import LoraRecipe
from llava.model.checkpointing import checkpoint_every
from llava.model.forward import supervised_logits
from llava.model.freezing import set_trainable
from llava.model.lora import add_lora
from tests.model.batches import make_row, packed

Built = Callable[..., tuple[Any, Any]]


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "lora"])
@pytest.mark.parametrize(("n", "redone"), [(0, 0), (1, 2), (2, 1)])
def test_same_gradients(n: int, redone: int, stage: str, built: Built) -> None:
    model, _ = built()
    if stage == "lora":
        add_lora(model, LoraRecipe(r=4, alpha=8, dropout=0.0))
    set_trainable(model, "pretrain" if stage == "pretrain" else "finetune")
    model.train()
    batch = packed([make_row(model, text=12, seed=1), make_row(model, text=20, seed=2)])

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        supervised_logits(model, batch).logsumexp(-1).sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    plain = gradients()
    assert checkpoint_every(model, n) == redone
    runs: list[int] = []
    model.model.language_model.layers[0].self_attn.register_forward_hook(lambda *_: runs.append(0))
    again = gradients()
    assert len(runs) == (2 if redone else 1)
    assert len(again) == len(plain)
    for a, b in zip(plain, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
