"""The order of rows and their layout: by seed and data alone, every row once, nothing over capacity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.config import TrainRecipe
from llava.data.batch_plan import BatchPlan
from llava.data.dataset import split_validation
from llava.data.layout import pack_rows, pad_rows, worst_packs
from llava.errors import DataError, SettingsError


def recipe(**changes: Any) -> TrainRecipe:
    values = {
        "learning_rate": 1e-3,
        "global_batch_size": 8,
        "micro_batch_size": 3,
        "max_length": 64,
        "pack_tokens": 100,
        "pack_images": 4,
    }
    return TrainRecipe(**{**values, **changes})


def facts(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    lengths = random.integers(4, 65, rows).astype(np.int32)
    return lengths, (lengths // 2).astype(np.int32), random.integers(0, 3, rows).astype(np.int32)


def plan(rows: int = 50, ranks: int = 1, seed: int = 0, **changes: Any) -> BatchPlan:
    return BatchPlan(*facts(rows, seed), recipe(**changes), ranks)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("grouped", [True, False])
def test_a_step_sees_the_same_rows_on_any_number_of_ranks(packing: bool, grouped: bool) -> None:
    plans = [plan(ranks=ranks, packing=packing, group_by_modality_length=grouped) for ranks in (1, 2, 3, 8)]
    plans.append(plan(ranks=2, packing=not packing, group_by_modality_length=grouped))
    for step in range(2 * plans[0].steps_per_epoch):
        laid_out = [p.step(step) for p in plans]
        rows = [sorted(row for rank in s.ranks for batch in rank for row in batch) for s in laid_out]
        assert all(r == rows[0] for r in rows)
        assert len({(s.supervised, s.tokens) for s in laid_out}) == 1
        for p, s in zip(plans, laid_out, strict=True):
            assert len(s.ranks) == p.world_size
            assert len({len(rank) for rank in s.ranks}) == 1


@pytest.mark.parametrize("grouped", [True, False])
def test_every_epoch_sees_every_row_once_in_another_order(grouped: bool) -> None:
    p = plan(rows=53, group_by_modality_length=grouped, epochs=2)
    assert p.total_steps == 2 * p.steps_per_epoch == 14
    orders = []
    for epoch in range(2):
        rows = np.concatenate([p.rows(epoch * p.steps_per_epoch + k) for k in range(p.steps_per_epoch)])
        assert sorted(rows.tolist()) == list(range(53))
        assert p.epoch_of(epoch * p.steps_per_epoch) == epoch
        orders.append(rows.tolist())
    assert orders[0] != orders[1]
    assert plan(rows=53, group_by_modality_length=grouped).order(0).tolist() == orders[0]
    other = BatchPlan(*facts(53), recipe(seed=1, group_by_modality_length=grouped), 1)
    assert other.order(0).tolist() != orders[0]


def test_grouped_steps_are_of_one_kind_but_for_the_rest() -> None:
    p = plan(rows=200, group_by_modality_length=True)
    kinds = [set((p.image_counts[p.rows(k)] > 0).tolist()) for k in range(p.steps_per_epoch)]
    assert sum(len(kind) == 2 for kind in kinds) <= 2
    assert {False} in kinds
    assert {True} in kinds
    assert [kind for kind in kinds if len(kind) == 1] != sorted((k for k in kinds if len(k) == 1), key=sorted)


def test_the_number_of_steps() -> None:
    assert plan(rows=50, epochs=0.5).total_steps == 4
    assert plan(rows=50, max_steps=3, epochs=7).total_steps == 3
    assert plan(rows=3).total_steps == 1
    assert len(plan(rows=50)) == 7


sizes = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 4)), min_size=1, max_size=60)


@given(rows=sizes, ranks=st.integers(1, 5))
def test_packs_hold_every_row_once_and_never_too_much(rows: list[tuple[int, int]], ranks: int) -> None:
    lengths, images = (np.array(column, dtype=np.int32) for column in zip(*rows, strict=True))
    packs = pack_rows(lengths, images, 100, 4, ranks)
    assert sorted(i for pack in packs for i in pack) == list(range(len(rows)))
    assert len(packs) % ranks == 0
    for pack in packs:
        assert lengths[pack].sum() <= 100
        assert images[pack].sum() <= 4
    needed = max(-(-int(lengths.sum()) // 100), -(-int(images.sum()) // 4), 1)
    assert len(packs) <= 2 * needed + ranks
    assert packs == pack_rows(lengths, images, 100, 4, ranks)


@given(rows=sizes, size=st.integers(1, 9), ranks=st.integers(1, 5))
def test_padded_batches_hold_every_row_once_and_neighbours_in_length(
    rows: list[tuple[int, int]], size: int, ranks: int
) -> None:
    lengths = np.array([length for length, _ in rows], dtype=np.int32)
    groups = pad_rows(lengths, size, ranks)
    assert sorted(i for group in groups for i in group) == list(range(len(rows)))
    assert len(groups) % ranks == 0
    assert max(len(group) for group in groups) <= size
    assert max(len(group) for group in groups) - min(len(group) for group in groups) <= 1
    in_order = [int(lengths[i]) for group in groups for i in group]
    assert in_order == sorted(in_order, reverse=True)


def test_packs_are_spread_evenly_over_ranks() -> None:
    lengths = np.random.default_rng(0).integers(50, 1500, 128).astype(np.int32)
    packs = pack_rows(lengths, np.ones(128, np.int32), 8192, 32, 8)
    tokens = [int(lengths[pack].sum()) for pack in packs]
    assert len(packs) == 16
    assert max(tokens) / (sum(tokens) / len(tokens)) < 1.05


@pytest.mark.parametrize("packing", [True, False])
def test_no_micro_batch_is_heavier_than_the_dry_run(packing: bool) -> None:
    p = plan(rows=120, packing=packing)
    heaviest, *_ = p.heaviest_micro_batches()
    everything = [batch for k in range(p.total_steps) for batch in p.step(k).ranks[0]]
    if packing:
        assert p.lengths[heaviest].sum() >= max(p.lengths[batch].sum() for batch in everything)
        assert p.lengths[heaviest].sum() <= 100
        assert p.image_counts[heaviest].sum() <= 4
    else:
        padded = [len(batch) * p.lengths[batch].max() for batch in everything if batch]
        assert len(heaviest) * p.lengths[heaviest].max() >= max(padded)


def test_padded_micro_batches_are_as_few_as_they_can_be() -> None:
    """16 rows, at most 4 in each, on 2 ranks: 4 of them; on 3 ranks 6, so that each has 2."""
    lengths = np.full(16, 10, np.int32)
    assert [len(batch) for batch in pad_rows(lengths, 4, 2)] == [4] * 4
    assert sorted(len(batch) for batch in pad_rows(lengths, 4, 3)) == [2, 2, 3, 3, 3, 3]
    assert [len(batch) for batch in pad_rows(lengths, 5, 1)] == [4] * 4


def test_the_dry_run_is_as_large_as_a_micro_batch_and_no_larger() -> None:
    assert [len(batch) for batch in plan(rows=120, packing=False).heaviest_micro_batches()] == [3]
    assert [len(batch) for batch in plan(rows=2, packing=False).heaviest_micro_batches()] == [2]
    lengths, two = np.full(9, 10, np.int32), np.full(9, 2, np.int32)
    assert [len(pack) for pack in worst_packs(lengths, two, 1000, 5)] == [2], "a third row would bring a sixth image"
    assert [len(pack) for pack in worst_packs(lengths, two, 45, 100)] == [4]


def test_a_row_that_just_fits_a_pack_is_taken() -> None:
    lengths, images = np.array([100, 4], np.int32), np.array([4, 0], np.int32)
    assert BatchPlan(lengths, lengths, images, recipe(max_length=100)).step(0).tokens == 104


def test_the_fingerprint_tells_data_and_settings_apart_but_not_ranks() -> None:
    base = plan().fingerprint()
    assert plan(ranks=4, packing=False).fingerprint() == base
    others = [
        plan(rows=49),
        plan(seed=1),
        BatchPlan(*facts(50), recipe(seed=3)),
        plan(global_batch_size=4),
        plan(group_by_modality_length=True),
    ]
    assert len({base, *(other.fingerprint() for other in others)}) == 6


def test_rows_that_fit_no_pack_and_empty_data_are_refused() -> None:
    lengths, supervised, images = facts(9)
    images[5] = 9
    with pytest.raises(SettingsError, match=r"pack_images: found 4; expected at least 9, the images of row 5"):
        BatchPlan(lengths, supervised, images, recipe())
    lengths[2] = 200
    with pytest.raises(SettingsError, match=r"pack_tokens: found 100; expected at least 200, the tokens of row 2"):
        BatchPlan(lengths, supervised, images, recipe())
    BatchPlan(lengths, supervised, images, recipe(packing=False))
    with pytest.raises(SettingsError, match="no rows"):
        plan(rows=0)
    with pytest.raises(SettingsError, match="world_size"):
        plan(ranks=0)


def test_validation_rows_are_set_aside_by_seed() -> None:
    train, validation = split_validation(100, 7, seed=1)
    assert sorted(train + validation) == list(range(100))
    assert len(validation) == 7
    assert split_validation(100, 7, seed=1) == (train, validation)
    assert split_validation(100, 7, seed=2)[1] != validation
    assert split_validation(5, 0, seed=0) == ([0, 1, 2, 3, 4], [])
    with pytest.raises(DataError, match="validation_rows: found 5, with 5 usable rows"):
        split_validation(5, 5, seed=0)


def test_the_heaviest_micro_batches_are_heaviest_in_tokens_and_in_images() -> None:
    """Long rows of text and short ones of an image each: no pack is worst for both, so both are tried."""
    lengths = np.array([900] * 4 + [100] * 20, dtype=np.int32)
    images = np.array([0] * 4 + [1] * 20, dtype=np.int32)
    recipe = TrainRecipe(learning_rate=1.0, packing=True, max_length=900, pack_tokens=1800, pack_images=16)
    by_tokens, by_images = BatchPlan(lengths, lengths, images, recipe).heaviest_micro_batches()
    assert lengths[by_tokens].sum() == 1800 and images[by_tokens].sum() == 0
    assert images[by_images].sum() == 16 and lengths[by_images].sum() <= 1800
    same = BatchPlan(lengths[4:], lengths[4:], images[4:], recipe).heaviest_micro_batches()
    assert len(same) == 1, "one pack where it is worst for both"
