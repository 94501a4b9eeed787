"""Which token comes next: the likeliest, or one drawn from the likely ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sampling:
    """How one answer's tokens are drawn.

    Attributes:
        temperature: 0 takes the likeliest token; 1 draws from the model's own distribution, more flattens it.
        top_p: draws among the likeliest tokens that together have this probability (Holtzman et al. 2020).
        seed: the same seed draws the same answer, whatever else is in the batch; None: another one each time.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


class Drawing:
    """Draws one answer's tokens, one after the other."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def next(self, logits_V: torch.Tensor) -> int:
        """An id, given the logits (V,) of the next token."""
        if self._sampling.temperature == 0:
            return int(logits_V.argmax())
        logits_V = logits_V.float().cpu() / self._sampling.temperature
        sorted_V, ids_V = logits_V.softmax(-1).sort(descending=True)
        # A token is in while those before it have not reached top_p; the first always is.
        sorted_V[sorted_V.cumsum(-1) - sorted_V >= self._sampling.top_p] = 0.0
        return int(ids_V[torch.multinomial(sorted_V, 1, generator=self._generator)])
