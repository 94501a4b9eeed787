"""The language-model head and its cross-entropy as one operation, a few positions at a time.

Logits are the largest tensors of a step: K x V in the model's dtype, in fp32, and once more for their gradient;
150,000 words and 4,000 positions are 8 GB. Here they exist for `CHUNK` positions at a time: each chunk's gradient
follows from its own logits, so it is made at once and only the gradients of the hidden states and of the weight are
kept (the idea of Liger's and Apple's fused cross-entropies: Hsu et al. 2024, arXiv:2410.10989; Wijmans et al. 2024,
arXiv:2411.09009).

Shapes: K supervised positions, D text width, V vocabulary, C positions of a chunk.
"""

from __future__ import annotations

import types
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

CHUNK = 1024


def install(head: nn.Linear) -> None:
    """Let `head(hidden, targets, divisor)` give the loss; `head(hidden)` stays what it is.

    One call of the module whatever K is: ranks whose micro-batches differ in K must gather a partitioned weight
    (ZeRO-3) equally often.
    """
    plain = head.forward

    def forward(
        self: nn.Linear, hidden_KD: torch.Tensor, targets_K: torch.Tensor | None = None, divisor: float = 1.0
    ) -> torch.Tensor:
        if targets_K is None:
            return plain(hidden_KD)
        return cross_entropy(hidden_KD, self.weight, self.bias, targets_K, divisor)

    head.forward = types.MethodType(forward, head)  # type: ignore[method-assign]


def cross_entropy(
    hidden_KD: torch.Tensor,
    weight_VD: torch.Tensor,
    bias_V: torch.Tensor | None,
    targets_K: torch.Tensor,
    divisor: float,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """Cross-entropy of `hidden @ weight.T + bias`, summed over K and divided by `divisor`; scalar, fp32."""
    loss: torch.Tensor = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden_KD, weight_VD, bias_V, targets_K, divisor, chunk, torch.is_grad_enabled()
    )
    return loss


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_KD: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_K: torch.Tensor,
        divisor: float,
        chunk: int,
        learning: bool,
    ) -> torch.Tensor:
        want_hidden, want_weight, want_bias = (learning and wanted for wanted in ctx.needs_input_grad[:3])
        count = hidden_KD.shape[0]
        total = torch.zeros((), dtype=torch.float32, device=hidden_KD.device)
        hidden_grad_KD = torch.empty_like(hidden_KD) if want_hidden else None
        # Sums over chunks are kept in fp32; a single chunk has nothing to sum.
        summed = torch.float32 if count > chunk else weight_VD.dtype
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=summed) if want_weight else None
        bias_grad_V = torch.zeros_like(bias_V, dtype=torch.float32) if want_bias and bias_V is not None else None
        for start in range(0, count, chunk):
            hidden_CD, targets_C = hidden_KD[start : start + chunk], targets_K[start : start + chunk]
            logits_CV = F.linear(hidden_CD, weight_VD, bias_V).float()
            log_CV = torch.log_softmax(logits_CV, dim=-1)
            del logits_CV
            total -= log_CV.gather(1, targets_C[:, None]).sum() / divisor
            if hidden_grad_KD is None and weight_grad_VD is None and bias_grad_V is None:
                continue
            grad_CV = log_CV.exp_()
            grad_CV.scatter_add_(1, targets_C[:, None], grad_CV.new_full((len(targets_C), 1), -1.0))
            grad_CV /= divisor
            if bias_grad_V is not None:
                bias_grad_V += grad_CV.sum(0)
            low_CV = grad_CV.to(weight_VD.dtype)
            del log_CV, grad_CV
            if hidden_grad_KD is not None:
                torch.mm(low_CV, weight_VD, out=hidden_grad_KD[start : start + chunk])
            if weight_grad_VD is not None:
                weight_grad_VD += low_CV.T @ hidden_CD
        ctx.save_for_backward(
            hidden_grad_KD,
            None if weight_grad_VD is None else weight_grad_VD.to(weight_VD.dtype),
            None if bias_grad_V is None or bias_V is None else bias_grad_V.to(bias_V.dtype),
        )
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (factor,) = grads
        made = [None if grad is None else grad * factor.to(grad.dtype) for grad in ctx.saved_tensors]
        return made[0], made[1], made[2], None, None, None, None
