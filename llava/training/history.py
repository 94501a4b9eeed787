"""What a run remembers of its steps, in bounded memory however long it runs.

Every step until there are `MOST` records; then all but the last quarter are merged two by two, and so again each time
they are `MOST` once more: the older, the coarser. Sums (tokens, seconds) stay exact, and of a pair that holds a spike
the spike is what remains, so that no jump of the loss vanishes from the report. What is kept follows from the records
alone: a resumed run keeps the same ones.
"""

from __future__ import annotations

from llava.training.job import StepRecord

MOST = 8192  # some 2 MB in a checkpoint's manifest


def remember(history: list[StepRecord], record: StepRecord) -> None:
    """Append a record, and merge old ones where there are too many."""
    history.append(record)
    if len(history) >= MOST:
        old = len(history) - MOST // 4
        old -= old % 2
        history[:old] = [_merged(*history[at : at + 2]) for at in range(0, old, 2)]


def _merged(first: StepRecord, second: StepRecord) -> StepRecord:
    """One record of two neighbours: of the louder one where a spike is among them, otherwise of their mean loss."""
    spike = first.spike or second.spike
    louder = max((each for each in (first, second) if each.spike), key=lambda each: each.loss, default=second)
    norms = [each.grad_norm for each in (first, second) if each.grad_norm is not None]
    tokens, steps = first.tokens + second.tokens, first.steps + second.steps
    return StepRecord(
        step=louder.step,
        loss=louder.loss if spike else (first.steps * first.loss + second.steps * second.loss) / steps,
        learning_rate=louder.learning_rate,
        tokens=tokens,
        padding=(first.padding * first.tokens + second.padding * second.tokens) / tokens if tokens else 0.0,
        grad_norm=max(norms, default=None),
        seconds=_sum(first.seconds, second.seconds),
        data_wait_seconds=_sum(first.data_wait_seconds, second.data_wait_seconds),
        spike=spike,
        steps=steps,
    )


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None and second is None else (first or 0.0) + (second or 0.0)
