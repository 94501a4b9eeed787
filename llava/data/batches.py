"""Batches: examples into tensors, padded or packed, and a loader that has them ready before they are asked for.

Shapes: B rows of a padded batch, or 1 for a pack; T tokens; I images (tiles); C channels; H height; W width;
K supervised positions; N document boundaries.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llava.data.batch_plan import BatchPlan, StepPlan
from llava.data.dataset import Example
from llava.data.device_preprocess import DevicePreprocessor, RawImage
from llava.data.labels import IGNORE_INDEX

__all__ = ["Batch", "BatchLoader", "BatchPlan", "Collator", "StepBatches", "StepPlan"]

_EMPTY_TOKENS = 8


@dataclass
class Batch:
    """One forward pass. A packed batch has B = 1 and `cu_seqlens_N`; a padded one has `attention_mask_BT`.

    Attributes:
        input_ids_BT: int64.
        position_ids_BT: int64; restarts at 0 at each document of a pack, 0 in padding.
        attention_mask_BT: padded: int64, 1 on real tokens; packed: None.
        cu_seqlens_N: packed: int32, where documents begin, and the end; padded: None.
        max_seqlen: longest document, a host integer.
        pixel_values_ICHW: float32; a single zero image where the rows have none.
        has_images: False: the pixels are that zero image, and its features count for nothing.
        image_sizes_I2: AnyRes: int64 (height, width) of each original image; else None.
        target_index_K: int64, positions in the flattened B*T whose next token is supervised.
        target_ids_K: int64, that next token.
        rows: the dataset's indices.
        tokens: real tokens, without padding.
        raw_images: instead of pixels, the images as decoded, each (H, W, C) uint8; `to(..., preprocess=...)` makes
            the pixels of them on the device. `pixel_values_ICHW` is the zero image meanwhile.
    """

    input_ids_BT: Tensor
    position_ids_BT: Tensor
    attention_mask_BT: Tensor | None
    cu_seqlens_N: Tensor | None
    max_seqlen: int
    pixel_values_ICHW: Tensor
    has_images: bool
    image_sizes_I2: Tensor | None
    target_index_K: Tensor
    target_ids_K: Tensor
    rows: list[int]
    tokens: int
    raw_images: tuple[RawImage, ...] = ()

    def to(
        self,
        device: torch.device | str,
        *,
        non_blocking: bool = False,
        preprocess: DevicePreprocessor | None = None,
    ) -> Batch:
        """The same batch on `device`. `image_sizes_I2` stays on the host, where the layout of tiles is computed.

        Args:
            preprocess: makes the pixels of `raw_images`; needed where there are any.
        """
        moved: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor) and item.name != "image_sizes_I2":
                moved[item.name] = value.to(device, non_blocking=non_blocking)
        if self.raw_images:
            if preprocess is None:
                raise ValueError("the batch holds raw images; to() needs a DevicePreprocessor to make pixels of them")
            moved |= {"pixel_values_ICHW": preprocess(self.raw_images), "raw_images": ()}
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, so that copies to a GPU do not block."""
        pinned: dict[str, Any] = {
            f.name: v.pin_memory() for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)
        }
        return replace(self, **pinned, raw_images=tuple(_pinned(image) for image in self.raw_images))


def _pinned(image_HWC: RawImage) -> Tensor:
    held_HWC = torch.empty(image_HWC.shape, dtype=torch.uint8, pin_memory=True)
    held_HWC.numpy()[...] = image_HWC  # once, straight from the decoder's memory, which torch could not wrap
    return held_HWC


@dataclass(frozen=True)
class Collator:
    """Examples into a batch.

    Args:
        pad_id: token of the padding.
        image_size: side of the zero image.
        packed: lay rows end to end instead of padding them.
        tiles: AnyRes: give `image_sizes_I2`.
    """

    pad_id: int
    image_size: int
    packed: bool
    tiles: bool = False

    def __call__(self, examples: Sequence[Example], rows: Sequence[int]) -> Batch:
        """Join examples; none at all gives a batch of a few tokens without loss, which every rank can run."""
        if not examples:
            nothing = np.full(_EMPTY_TOKENS, self.pad_id, dtype=np.int32)
            side = self.image_size
            examples = [
                Example(
                    nothing, np.full_like(nothing, IGNORE_INDEX), np.zeros((0, 3, side, side), np.float32), "(empty)"
                )
            ]
        ids, positions, mask, boundaries, starts, width = self._pack(examples) if self.packed else self._pad(examples)
        index_K, targets_K = _targets(examples, starts)
        pixels = [example.pixels for example in examples if len(example.pixels)]
        raw = tuple(image for example in examples for image in example.raw)
        sizes = [size for example in examples for size in example.image_sizes]
        if not pixels:
            pixel_values = torch.zeros((1, 3, self.image_size, self.image_size))
            sizes = sizes or [(self.image_size, self.image_size)]
        else:
            pixel_values = torch.from_numpy(np.concatenate(pixels))
        return Batch(
            input_ids_BT=torch.from_numpy(ids),
            position_ids_BT=torch.from_numpy(positions),
            attention_mask_BT=None if mask is None else torch.from_numpy(mask),
            cu_seqlens_N=None if boundaries is None else torch.from_numpy(boundaries),
            max_seqlen=width,
            pixel_values_ICHW=pixel_values,
            has_images=bool(pixels or raw),
            image_sizes_I2=torch.tensor(sizes, dtype=torch.int64) if self.tiles else None,
            target_index_K=torch.from_numpy(index_K),
            target_ids_K=torch.from_numpy(targets_K),
            rows=list(rows),
            tokens=sum(len(example.input_ids) for example in examples) if rows else 0,
            raw_images=raw,
        )

    def _pack(self, examples: Sequence[Example]) -> tuple[Any, ...]:
        lengths = [len(example.input_ids) for example in examples]
        ids_1T = np.concatenate([example.input_ids for example in examples]).astype(np.int64)[None]
        positions_1T = np.concatenate([np.arange(length, dtype=np.int64) for length in lengths])[None]
        boundaries_N = np.cumsum([0, *lengths]).astype(np.int32)
        return ids_1T, positions_1T, None, boundaries_N, boundaries_N[:-1].tolist(), max(lengths)

    def _pad(self, examples: Sequence[Example]) -> tuple[Any, ...]:
        width = max(len(example.input_ids) for example in examples)
        ids_BT = np.full((len(examples), width), self.pad_id, dtype=np.int64)
        positions_BT = np.zeros_like(ids_BT)
        mask_BT = np.zeros_like(ids_BT)
        for row, example in enumerate(examples):
            length = len(example.input_ids)
            ids_BT[row, :length] = example.input_ids
            positions_BT[row, :length] = np.arange(length)
            mask_BT[row, :length] = 1
        return ids_BT, positions_BT, mask_BT, None, [row * width for row in range(len(examples))], width


def _targets(examples: Sequence[Example], starts: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    index: list[npt.NDArray[np.int64]] = []
    ids: list[npt.NDArray[np.int64]] = []
    for example, start in zip(examples, starts, strict=True):
        at = np.flatnonzero(example.labels[1:] != IGNORE_INDEX)  # the token at `at` predicts the one after it
        index.append(at + start)
        ids.append(example.labels[1:][at].astype(np.int64))
    return np.concatenate(index).astype(np.int64), np.concatenate(ids)


@dataclass(frozen=True)
class StepBatches:
    """One rank's share of an optimiser step.

    Attributes:
        supervised: supervised tokens of the whole step over all ranks, the divisor of the loss.
        wait_seconds: how long the caller waited for it.
    """

    step: int
    micro_batches: list[Batch]
    supervised: int
    wait_seconds: float


class BatchLoader:
    """Iterates one rank's steps from `start_step` to the plan's end, reading ahead in threads.

    Memory is bounded: at most `ahead_rows` rows are being built, and at most two steps wait to be fetched. An error of
    a row is raised when its step is fetched.

    Args:
        dataset: anything whose rows are `Example`s (`LazySupervisedDataset`).
        plan: the order of rows.
        rank: whose share.
        start_step: first step.
        workers: threads that build rows; 0 builds them in the caller's thread.
        collator: how examples become a batch; default: from the dataset's encoder and preprocessor.
        pin_memory: page-locked tensors, for a GPU.
    """

    def __init__(
        self,
        dataset: Any,
        plan: BatchPlan,
        rank: int = 0,
        start_step: int = 0,
        workers: int = 4,
        *,
        collator: Collator | None = None,
        pin_memory: bool = False,
        end_step: int | None = None,
    ) -> None:
        self.dataset = dataset
        self.plan = plan
        self.rank = rank
        self.start_step = start_step
        self.end_step = plan.total_steps if end_step is None else end_step
        self.workers = workers
        self.pin_memory = pin_memory
        self.collator = collator if collator is not None else collator_of(dataset, plan.recipe.packing)

    def batch(self, rows: Sequence[int]) -> Batch:
        """One batch of given rows, built in the caller's thread: a dry run, or validation."""
        return self._finish(self.collator([self.dataset[row] for row in rows], rows))

    def __iter__(self) -> Iterator[StepBatches]:
        if self.workers == 0:
            for step in range(self.start_step, self.end_step):
                began = time.monotonic()
                plan = self.plan.step(step)
                batches = [self.batch(rows) for rows in plan.ranks[self.rank]]
                yield StepBatches(step, batches, plan.supervised, time.monotonic() - began)
            return
        ready: queue.Queue[tuple[StepPlan, list[Batch]] | BaseException | None] = queue.Queue(maxsize=1)
        stop = threading.Event()
        producer = threading.Thread(target=self._produce, args=(ready, stop), name="llava-batches", daemon=True)
        producer.start()
        try:
            while True:
                began = time.monotonic()
                item = ready.get()
                waited = time.monotonic() - began
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                plan, batches = item
                yield StepBatches(plan.step, batches, plan.supervised, waited)
        finally:
            stop.set()
            _drain(ready, producer)

    def _produce(self, ready: queue.Queue[Any], stop: threading.Event) -> None:
        try:
            with ThreadPoolExecutor(self.workers, thread_name_prefix="llava-row") as pool:
                rows = _ReadAhead(pool, self.dataset, self._rows(), self.workers * 4)
                try:
                    for step in range(self.start_step, self.end_step):
                        plan = self.plan.step(step)
                        batches = []
                        for group in plan.ranks[self.rank]:
                            if stop.is_set():
                                return
                            batches.append(self._finish(self.collator([rows.next() for _ in group], group)))
                        ready.put((plan, batches))
                        if stop.is_set():
                            return
                finally:
                    rows.cancel()
            ready.put(None)
        except BaseException as error:  # handed to the caller's thread, whatever it is
            ready.put(error)

    def _rows(self) -> Iterator[int]:
        for step in range(self.start_step, self.end_step):
            for group in self.plan.step(step).ranks[self.rank]:
                yield from group

    def _finish(self, batch: Batch) -> Batch:
        return batch.pin_memory() if self.pin_memory else batch


class _ReadAhead:
    """Rows in order, at most `ahead` of them being built or waiting."""

    def __init__(self, pool: ThreadPoolExecutor, dataset: Any, rows: Iterator[int], ahead: int) -> None:
        self._pool, self._dataset, self._rows = pool, dataset, rows
        self._running: deque[Future[Example]] = deque()
        for _ in range(ahead):
            self._start()

    def next(self) -> Example:
        future = self._running.popleft()
        example = future.result()
        self._start()
        return example

    def cancel(self) -> None:
        for future in self._running:
            future.cancel()

    def _start(self) -> None:
        row = next(self._rows, None)
        if row is not None:
            self._running.append(self._pool.submit(self._dataset.__getitem__, row))


def _drain(ready: queue.Queue[Any], producer: threading.Thread) -> None:
    """Let a producer that waits to put its last step see that nobody wants it."""
    while producer.is_alive():
        try:
            ready.get_nowait()
        except queue.Empty:
            producer.join(timeout=0.05)


def collator_of(dataset: Any, packed: bool) -> Collator:
    """The collator that fits a `LazySupervisedDataset`."""
    preprocessor = dataset.preprocessor
    return Collator(dataset.encoder.pad_id, preprocessor.image_size, packed, preprocessor.tiles)
