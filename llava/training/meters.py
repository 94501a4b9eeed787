"""What each step measured, kept on the device until it is looked at: fetching it is the only host sync of the loop.

[Contract] `add` never waits for the device. `flush` is collective: every rank calls it after the same step.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from llava.errors import DataError
from llava.training.history import remember
from llava.training.job import StepRecord

SPIKE_WINDOW = 50
SPIKE_MIN_STEPS = 10
SPIKE_DEVIATIONS = 8.0


@dataclass
class _Pending:
    step: int
    micro_losses: list[torch.Tensor]
    micro_rows: list[list[str]]
    grad_norm: torch.Tensor | float | None
    learning_rate: float
    tokens: int
    places: int
    data_wait: float
    seconds: float = field(default=0.0)


class NotFinite(DataError):
    """The loss or the gradient became NaN or infinite; the message names the rows of the first such step."""


class Meter:
    """Collects steps and turns them into `StepRecord`s.

    Args:
        device: where losses are.
        history: of the run so far; spikes are judged against its end, and new records are appended to it.
    """

    def __init__(self, device: torch.device, rank: int, world_size: int, history: list[StepRecord]) -> None:
        self.device, self.rank, self.world_size, self.history = device, rank, world_size, history
        self._pending: list[_Pending] = []
        self._last = time.perf_counter()

    def start_clock(self) -> None:
        """Time from here on belongs to the next step (not to a validation or a save before it)."""
        self._last = time.perf_counter()

    def add(
        self,
        step: int,
        micro_losses: list[torch.Tensor],
        micro_rows: list[list[str]],
        grad_norm: torch.Tensor | float | None,
        *,
        learning_rate: float,
        tokens: int,
        places: int,
        data_wait: float,
    ) -> None:
        """Note one step: 1-based `step`, this rank's losses, record ids and token counts (`places` with padding)."""
        if isinstance(grad_norm, torch.Tensor):
            grad_norm = grad_norm.detach().clone()
        now = time.perf_counter()
        pending = _Pending(
            step, micro_losses, micro_rows, grad_norm, learning_rate, tokens, places, data_wait, now - self._last
        )
        self._last = now
        self._pending.append(pending)

    def flush(self) -> list[StepRecord]:
        """Fetch everything since the last flush, from all ranks.

        Raises:
            NotFinite: a loss or gradient is not a number.
        """
        if not self._pending:
            return []
        pending, self._pending = self._pending, []
        zero = torch.zeros((), device=self.device)
        # fp64 so that token counts stay exact; (S, 4): loss, tokens, places, slowest wait is per rank and taken apart.
        loss_S = torch.stack([torch.stack(p.micro_losses).sum() if p.micro_losses else zero for p in pending]).double()
        counts_S2 = torch.tensor([[p.tokens, p.places] for p in pending], dtype=torch.float64, device=self.device)
        total_S3 = torch.cat([loss_S[:, None], counts_S2], dim=1)
        if self.world_size > 1:
            dist.all_reduce(total_S3)
        rows = total_S3.tolist()
        norms = [None if p.grad_norm is None else float(p.grad_norm) for p in pending]
        self._check_finite(pending, [row[0] for row in rows], norms)
        seconds = self._measured_seconds(pending)
        records = []
        for p, (loss, tokens, places), norm, second in zip(pending, rows, norms, seconds, strict=True):
            record = StepRecord(
                step=p.step,
                loss=loss,
                learning_rate=p.learning_rate,
                tokens=int(tokens),
                padding=1 - tokens / places if places else 0.0,
                grad_norm=norm,
                seconds=second,
                data_wait_seconds=p.data_wait,
                spike=self._is_spike(loss),
            )
            remember(self.history, record)
            records.append(record)
        return records

    def _measured_seconds(self, pending: list[_Pending]) -> list[float]:
        """Host times of single steps mean little while the device runs behind; their sum up to a fetch is right."""
        if self.device.type == "cpu":
            return [p.seconds for p in pending]
        now = time.perf_counter()
        total = sum(p.seconds for p in pending) + now - self._last
        self._last = now
        return [total / len(pending)] * len(pending)

    def _is_spike(self, loss: float) -> bool:
        recent = [record.loss for record in self.history[-SPIKE_WINDOW:]]
        if len(recent) < SPIKE_MIN_STEPS:
            return False
        middle = statistics.median(recent)
        spread = statistics.median(abs(value - middle) for value in recent)
        return loss > middle + SPIKE_DEVIATIONS * max(spread, 0.01 * abs(middle))

    def _check_finite(self, pending: list[_Pending], losses: list[float], norms: list[float | None]) -> None:
        bad = [i for i, p in enumerate(pending) if not math.isfinite(losses[i]) or not math.isfinite(norms[i] or 0.0)]
        if not bad:
            return
        first = pending[bad[0]]
        mine = [
            rows
            for loss, rows in zip(first.micro_losses, first.micro_rows, strict=True)
            if not math.isfinite(float(loss))
        ]
        gathered: list[list[list[str]]] = [mine]
        if self.world_size > 1:
            gathered = [[] for _ in range(self.world_size)]
            dist.all_gather_object(gathered, mine)
        culprits = [row for rank_rows in gathered for rows in rank_rows for row in rows]
        if culprits:
            where = f"rows {', '.join(culprits[:32])}{' and more' if len(culprits) > 32 else ''}"
            raise NotFinite(
                f"step {first.step}: the loss is {losses[bad[0]]}; its micro-batch held {where}. "
                "Look at these rows, or lower the learning rate; the last checkpoint is from before this step"
            )
        rows = ", ".join([row for rows in first.micro_rows for row in rows][:32])
        raise NotFinite(
            f"step {first.step}: the losses are finite but the gradient norm is {norms[bad[0]]}; it held rows {rows}. "
            "Lower the learning rate or set max_grad_norm; the last checkpoint is from before this step"
        )
