"""What a run remembers of its steps, in bounded memory however long it runs.

Every step until there are `MOST` records; then all but the last quarter are merged with their neighbours, the finest
first, so that the whole run stands in the report about equally fine. Sums (tokens, seconds) stay exact, and of two
records with a spike among them the spike is what remains: no jump of the loss vanishes. What is kept follows from the
records alone, so a resumed run keeps the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from llava.training.job import StepRecord

MOST = 8192  # some 2 MB in a checkpoint's manifest


def remember(history: list[StepRecord], record: StepRecord) -> None:
    """Append a record, and merge old ones where there are too many."""
    history.append(record)
    if len(history) < MOST:
        return
    old = MOST - MOST // 4
    limit, merged = 2, _within(history[:old], 2)
    while len(merged) > 3 * old // 4:
        limit *= 2
        merged = _within(history[:old], limit)
    history[:old] = merged


def _within(records: Sequence[StepRecord], limit: int) -> list[StepRecord]:
    """Neighbours merged, each pair once, where they stand for no more than `limit` steps together."""
    found: list[StepRecord] = []
    whole = False  # the last of `found` is a pair already
    for record in records:
        if found and not whole and found[-1].steps + record.steps <= limit:
            found[-1] = _merged(found[-1], record)
            whole = True
        else:
            found.append(record)
            whole = False
    return found


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
