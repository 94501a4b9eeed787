"""The training objective as a module, so that DeepSpeed's hooks see one forward with one scalar output.

Shapes: K supervised positions of a micro-batch, D text width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from llava.model.forward import supervised_hidden
from llava.training.head import install


class SupervisedLoss(nn.Module):
    """Cross-entropy summed over a micro-batch's supervised tokens, divided by the whole step's count of them.

    The divisor is known on the host from the plan before anything runs, so the sum over micro-batches and ranks is the
    mean over the step's supervised tokens, however the rows are laid out. A micro-batch without supervised tokens
    gives an exact zero that still reaches every parameter.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        install(model.lm_head)  # type: ignore[arg-type]

    def forward(self, batch: Any, divisor: float) -> torch.Tensor:
        """Loss share of `batch` (scalar, fp32)."""
        hidden_KD = supervised_hidden(self.model, batch)
        # Through the module's own call: under ZeRO-3 its hooks bring the head's weight.
        loss: torch.Tensor = self.model.lm_head(hidden_KD, batch.target_ids_K, divisor)  # type: ignore[operator]
        return loss
