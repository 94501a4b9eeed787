"""Which rows make which optimiser step, and how a step's rows are laid out into micro-batches.

The first question is answered by (seed, epoch, the data's lengths) alone: step k sees the same rows on one rank and on
sixty-four, packed or padded. Only the second depends on the number of ranks, and it changes speed and memory, never the
mathematics. Nothing is drawn at run time, so a resumed run needs only the number of its step.

Shapes: R rows, G rows of a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from llava.config import TrainRecipe
from llava.data.dataset import fingerprint_of
from llava.data.layout import pack_rows, pad_rows, worst_packs
from llava.errors import SettingsError

PLAN_VERSION = 1


@dataclass(frozen=True)
class StepPlan:
    """One optimiser step.

    Attributes:
        step: counted over all epochs.
        ranks: for each rank its micro-batches, each a list of rows; all ranks have the same number of micro-batches,
            and an empty list is a micro-batch without rows.
        supervised: supervised tokens of the whole step, the divisor of the loss.
        tokens: real tokens of the whole step.
    """

    step: int
    ranks: list[list[list[int]]]
    supervised: int
    tokens: int


class BatchPlan:
    """The order of all rows over all steps.

    Args:
        lengths: tokens a row, R.
        supervised: supervised tokens a row, R.
        image_counts: images (tiles) a row, R.
        recipe: the stage's section.
        world_size: ranks.

    Raises:
        SettingsError: no rows, or a row that fits no pack.
    """

    def __init__(
        self,
        lengths: npt.NDArray[np.int32],
        supervised: npt.NDArray[np.int32],
        image_counts: npt.NDArray[np.int32],
        recipe: TrainRecipe,
        world_size: int = 1,
    ) -> None:
        if len(lengths) == 0:
            raise SettingsError("no rows to train on; expected at least one")
        if world_size < 1:
            raise SettingsError(f"world_size: found {world_size}; expected at least 1")
        if recipe.packing:
            _refuse_large(lengths, recipe.pack_tokens, "pack_tokens", "tokens")
            _refuse_large(image_counts, recipe.pack_images, "pack_images", "images")
        self.lengths = np.asarray(lengths, dtype=np.int32)
        self.supervised_tokens = np.asarray(supervised, dtype=np.int32)
        self.image_counts = np.asarray(image_counts, dtype=np.int32)
        self.recipe = recipe
        self.world_size = world_size
        self.steps_per_epoch = math.ceil(len(lengths) / recipe.global_batch_size)
        self._epoch_order = lru_cache(maxsize=2)(self._make_epoch_order)

    def __len__(self) -> int:
        return self.total_steps

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run: `max_steps` where given, else what `epochs` comes to."""
        if self.recipe.max_steps is not None:
            return self.recipe.max_steps
        return max(1, math.ceil(self.recipe.epochs * self.steps_per_epoch))

    def epoch_of(self, step: int) -> int:
        """The epoch that a step belongs to."""
        return step // self.steps_per_epoch

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """All rows in the order of one epoch; step k of it sees rows k*G to (k+1)*G."""
        return self._epoch_order(epoch)

    def rows(self, step: int) -> npt.NDArray[np.int64]:
        """The rows of one step. The last step of an epoch may have fewer than G."""
        first = (step % self.steps_per_epoch) * self.recipe.global_batch_size
        return self.order(self.epoch_of(step))[first : first + self.recipe.global_batch_size]

    def step(self, step: int) -> StepPlan:
        """Rows of one step, laid out over ranks and micro-batches."""
        rows = self.rows(step)
        lengths, images = self.lengths[rows], self.image_counts[rows]
        recipe = self.recipe
        if recipe.packing:
            groups = pack_rows(lengths, images, recipe.pack_tokens, recipe.pack_images, self.world_size)
        else:
            groups = pad_rows(lengths, recipe.micro_batch_size, self.world_size)
        ranks = [
            [[int(rows[i]) for i in group] for group in groups[rank :: self.world_size]]
            for rank in range(self.world_size)
        ]
        return StepPlan(step, ranks, int(self.supervised_tokens[rows].sum()), int(lengths.sum()))

    def heaviest_micro_batches(self) -> list[list[int]]:
        """Rows of micro-batches as heavy as any can get, in tokens and in images: their dry run tells about memory."""
        if self.recipe.packing:
            return worst_packs(self.lengths, self.image_counts, self.recipe.pack_tokens, self.recipe.pack_images)
        size = min(self.recipe.micro_batch_size, len(self.lengths))
        heavy = np.lexsort((np.arange(len(self.lengths)), -self.image_counts, -self.lengths))[:size]
        return [[int(row) for row in heavy]]

    def fingerprint(self) -> str:
        """Hash of all that the order of rows depends on; a run never resumes from a checkpoint of another plan."""
        recipe = self.recipe
        settings = f"{PLAN_VERSION} {recipe.seed} {recipe.global_batch_size} {recipe.group_by_modality_length}"
        arrays = (self.lengths, self.supervised_tokens, self.image_counts)
        return fingerprint_of(settings, *(array.astype("<i4").tobytes() for array in arrays))

    def _make_epoch_order(self, epoch: int) -> npt.NDArray[np.int64]:
        random = np.random.Generator(np.random.PCG64([self.recipe.seed, epoch]))
        if not self.recipe.group_by_modality_length:
            return random.permutation(len(self.lengths))
        return _grouped_order(self.image_counts, self.recipe.global_batch_size, random)


def _grouped_order(
    image_counts: npt.NDArray[np.int32], group: int, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Steps of one kind each (rows with images, rows without), in shuffled order; the rest of both kinds comes last.

    The original sorts each step's rows by length as well; here the layout does that for every step.
    """
    whole: list[npt.NDArray[np.int64]] = []
    rest: list[npt.NDArray[np.int64]] = []
    for rows in (np.flatnonzero(image_counts > 0), np.flatnonzero(image_counts == 0)):
        shuffled = random.permutation(rows)
        full = len(shuffled) // group * group
        whole += list(shuffled[:full].reshape(-1, group))
        rest.append(shuffled[full:])
    steps = [whole[i] for i in random.permutation(len(whole))]
    return np.concatenate([*steps, random.permutation(np.concatenate(rest))]).astype(np.int64)


def _refuse_large(sizes: npt.NDArray[np.int32], limit: int, setting: str, unit: str) -> None:
    worst = int(np.argmax(sizes))
    if sizes[worst] > limit:
        raise SettingsError(
            f"{setting}: found {limit}; expected at least {sizes[worst]}, the {unit} of row {worst}, which fits no pack"
        )
