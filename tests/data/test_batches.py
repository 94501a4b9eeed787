"""Batches: the same targets padded or packed, and a loader that neither loses, reorders, hides nor hoards rows."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.data.batch_plan import BatchPlan
from llava.data.batches import Batch, BatchLoader, Collator
from llava.data.dataset import Example
from llava.data.labels import IGNORE_INDEX
from llava.errors import RowError
from tests.data.test_batch_plan import recipe

PAD = 9


def example(length: int, images: int = 1, seed: int = 0) -> Example:
    random = np.random.default_rng([length, images, seed])
    ids = random.integers(10, 99, length).astype(np.int32)
    labels = np.where(random.random(length) < 0.5, ids, IGNORE_INDEX).astype(np.int32)
    labels[-1] = ids[-1]
    pixels = random.random((images, 3, 4, 4)).astype(np.float32)
    return Example(ids, labels, pixels, f"r{length}", tuple((5, 6 + i) for i in range(images)))


def expected_targets(examples: list[Example]) -> list[tuple[list[int], int]]:
    """Each supervised token with the tokens before it in its own document."""
    return [
        (e.input_ids[:t].tolist(), int(e.labels[t]))
        for e in examples
        for t in range(1, len(e.labels))
        if e.labels[t] != IGNORE_INDEX
    ]


def found_targets(batch: Batch) -> list[tuple[list[int], int]]:
    flat, positions = batch.input_ids_BT.flatten().tolist(), batch.position_ids_BT.flatten().tolist()
    return [
        (flat[i - positions[i] : i + 1], target)
        for i, target in zip(batch.target_index_K.tolist(), batch.target_ids_K.tolist(), strict=True)
    ]


@given(
    shapes=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2)), min_size=1, max_size=6),
    packed=st.booleans(),
)
def test_targets_are_the_next_tokens_of_their_own_document(shapes: list[tuple[int, int]], packed: bool) -> None:
    examples = [example(length, images, seed) for seed, (length, images) in enumerate(shapes)]
    batch = Collator(PAD, 4, packed)(examples, range(len(examples)))
    assert found_targets(batch) == expected_targets(examples)
    assert batch.tokens == sum(length for length, _ in shapes)
    assert batch.max_seqlen == max(length for length, _ in shapes)
    assert batch.rows == list(range(len(examples)))
    images = sum(count for _, count in shapes)
    assert batch.has_images == (images > 0)
    if images:
        assert np.array_equal(batch.pixel_values_ICHW.numpy(), np.concatenate([e.pixels for e in examples]))
    else:
        assert batch.pixel_values_ICHW.tolist() == torch.zeros(1, 3, 4, 4).tolist()


def test_a_pack_in_numbers() -> None:
    first = Example(
        np.array([11, 12, 13], np.int32), np.array([-100, 12, 13], np.int32), np.zeros((0, 3, 4, 4), np.float32), "a"
    )
    second = Example(
        np.array([21, 22], np.int32), np.array([21, 22], np.int32), np.zeros((0, 3, 4, 4), np.float32), "b"
    )
    batch = Collator(PAD, 4, True)([first, second], [5, 7])
    assert batch.input_ids_BT.tolist() == [[11, 12, 13, 21, 22]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 0, 1]]
    assert batch.attention_mask_BT is None
    assert batch.cu_seqlens_N is not None
    assert (batch.cu_seqlens_N.dtype, batch.cu_seqlens_N.tolist()) == (torch.int32, [0, 3, 5])
    # the first token of a document is never a target: nothing of its own document comes before it
    assert batch.target_index_K.tolist() == [0, 1, 3]
    assert batch.target_ids_K.tolist() == [12, 13, 22]
    padded = Collator(PAD, 4, False)([first, second], [5, 7])
    assert padded.input_ids_BT.tolist() == [[11, 12, 13], [21, 22, PAD]]
    assert padded.position_ids_BT.tolist() == [[0, 1, 2], [0, 1, 0]]
    assert padded.attention_mask_BT is not None
    assert padded.attention_mask_BT.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert padded.target_index_K.tolist() == [0, 1, 3]


@pytest.mark.parametrize("packed", [True, False])
def test_an_empty_micro_batch_runs_and_weighs_nothing(packed: bool) -> None:
    batch = Collator(PAD, 4, packed)([], [])
    assert batch.input_ids_BT.shape[0] == 1
    assert (batch.target_index_K.numel(), batch.tokens, batch.rows, batch.has_images) == (0, 0, [], False)
    assert batch.target_index_K.dtype == batch.target_ids_K.dtype == torch.int64


def test_tiles_bring_the_sizes_of_their_images() -> None:
    batch = Collator(PAD, 4, True, tiles=True)([example(5, 2), example(6, 0), example(7, 1)], [0, 1, 2])
    assert batch.image_sizes_I2 is not None
    assert batch.image_sizes_I2.tolist() == [[5, 6], [5, 7], [5, 6]]
    moved = batch.to("cpu")
    assert moved.rows == batch.rows
    assert torch.equal(moved.input_ids_BT, batch.input_ids_BT)


class Rows:
    """A dataset of made examples that counts what is being built and held."""

    def __init__(self, lengths: np.ndarray, broken: int = -1, slow: bool = False) -> None:
        self.lengths, self.broken, self.slow = lengths, broken, slow
        self.lock = threading.Lock()
        self.built = 0

    def __getitem__(self, row: int) -> Example:
        if row == self.broken:
            raise RowError("rows.json", row, "image", "x.jpg", "an existing file", problem="image-missing")
        if self.slow:
            time.sleep(0.001 * (row % 4))  # rows finish out of order
        with self.lock:
            self.built += 1
        return example(int(self.lengths[row]), row % 2, row)


def loaders(
    workers: int, rows: int = 60, broken: int = -1, start: int = 0, rank: int = 0, **changes: Any
) -> BatchLoader:
    lengths = np.random.default_rng(3).integers(4, 65, rows).astype(np.int32)
    plan = BatchPlan(lengths, lengths, (np.arange(rows) % 2).astype(np.int32), recipe(**changes), 2)
    collator = Collator(PAD, 4, plan.recipe.packing)
    return BatchLoader(Rows(lengths, broken, workers > 0), plan, rank, start, workers, collator=collator)


def contents(loader: BatchLoader) -> list[Any]:
    return [
        (
            s.step,
            s.supervised,
            [(b.rows, b.input_ids_BT.tolist(), b.pixel_values_ICHW.sum().item()) for b in s.micro_batches],
        )
        for s in loader
    ]


@pytest.mark.parametrize("packing", [True, False])
def test_threads_change_nothing(packing: bool) -> None:
    assert contents(loaders(5, packing=packing)) == contents(loaders(0, packing=packing))


@pytest.mark.parametrize("workers", [0, 3])
def test_a_loader_started_later_goes_on_where_the_other_was(workers: int) -> None:
    whole = contents(loaders(workers, epochs=2))
    assert [step for step, *_ in whole] == list(range(16))
    for start in (1, 7, 8, 15):
        assert contents(loaders(workers, start=start, epochs=2)) == whole[start:]


@pytest.mark.parametrize("workers", [0, 3])
def test_a_row_that_breaks_is_raised_and_nothing_after_it_is_given(workers: int) -> None:
    loader = loaders(workers, broken=17)
    broken_at = next(k for k in range(loader.plan.total_steps) if 17 in loader.plan.rows(k))
    rank = next(r for r in (0, 1) if any(17 in batch for batch in loader.plan.step(broken_at).ranks[r]))
    seen: list[int] = []

    def consume() -> None:
        for step in loaders(workers, broken=17, rank=rank):
            seen.append(step.step)

    with pytest.raises(RowError, match="row 17"):
        consume()
    assert seen == list(range(broken_at))


def test_a_loader_left_early_stops_its_threads() -> None:
    before = threading.active_count()
    iterator = iter(loaders(4, rows=400))
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]  # a generator
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_reading_ahead_is_bounded() -> None:
    """A consumer that stands still lets a few steps and a few rows be built, however long the run is."""
    loader = loaders(3, rows=4000)
    iterator = iter(loader)
    next(iterator)
    rows = loader.dataset
    deadline, last = time.monotonic() + 10, -1
    while rows.built != last and time.monotonic() < deadline:
        last = rows.built
        time.sleep(0.2)
    per_step = loader.plan.recipe.global_batch_size
    assert rows.built <= 4 * per_step + 3 * 4
    iterator.close()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_memory_is_flat_over_many_rows() -> None:
    """20,000 rows of about 50 KB each: a loader that kept even a tenth of them would grow by 100 MB."""
    resource_page = 4096
    rows = 20_000
    lengths = np.full(rows, 64, np.int32)
    plan = BatchPlan(lengths, lengths, np.ones(rows, np.int32), recipe(pack_tokens=512, pack_images=8), 1)

    class Large(Rows):
        def __getitem__(self, row: int) -> Example:
            made = example(64, 0, row % 50)
            return Example(made.input_ids, made.labels, np.ones((1, 3, 64, 64), np.float32), made.record_id)

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource_page

    seen = [
        resident()
        for step in BatchLoader(Large(lengths), plan, workers=3, collator=Collator(PAD, 64, True))
        if step.step % 100 == 0
    ]
    assert len(seen) == 25
    assert seen[-1] - seen[3] < 40 * 2**20


def test_one_batch_of_given_rows_is_built_at_once() -> None:
    loader = loaders(0)
    heaviest, *_ = loader.plan.heaviest_micro_batches()
    batch = loader.batch(heaviest)
    assert batch.rows == heaviest
    assert loader.batch([]).rows == []
