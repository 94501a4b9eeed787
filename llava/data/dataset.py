"""The dataset: each row built on the fly from its record, as LLaVA's `LazySupervisedDataset` does.

What the planner needs of all rows beforehand (lengths, supervised tokens, images) is computed from text alone.

Shapes: R rows, T tokens, I images (tiles for AnyRes), C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from llava.data.images import ImageError, ImageSource
from llava.data.labels import RowEncoder
from llava.data.preprocess import MAX_DEVICE_PIXELS, Preprocessor
from llava.data.records import Record
from llava.errors import DataError, RowError

Size = tuple[int, int]
FACTS_CHUNK = 128
"""Rows encoded at once: a few MB while it lasts."""


@dataclass(frozen=True)
class Example:
    """One row, ready for a batch.

    Attributes:
        input_ids: int32, T, image placeholders expanded.
        labels: int32, T, -100 where the loss does not fall.
        pixels: float32, (I, C, H, W); I = 0 in a text-only row.
        record_id: the record's id, for messages.
        image_sizes: (height, width) in pixels of each original image; AnyRes lays out its tiles by it.
        raw: instead of `pixels`, the images as decoded, each (H, W, C) uint8, for `DevicePreprocessor`; those above
            `MAX_DEVICE_PIXELS` are at their final size already.
    """

    input_ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    pixels: npt.NDArray[np.float32]
    record_id: str
    image_sizes: tuple[Size, ...] = field(default=())
    raw: tuple[npt.NDArray[np.uint8], ...] = field(default=())


@dataclass(frozen=True)
class RowFacts:
    """What planning needs of every row: int32, R each."""

    lengths: npt.NDArray[np.int32]
    supervised: npt.NDArray[np.int32]
    image_counts: npt.NDArray[np.int32]


class LazySupervisedDataset(Sequence[Example]):
    """Rows built when asked for. Safe to index from threads.

    Args:
        records: usable rows.
        encoder: text to ids and labels.
        images: where images are read.
        preprocessor: images to pixels.
        sizes: reference -> (width, height) of each image; only AnyRes needs it (from `check.check_rows`).
        file: URI of the data file, for messages.
        facts: when already known for these very records (from `check.check_rows`).
        threads: to compute the facts with.
        raw_pixels: leave padding, resizing and normalisation to the device: examples carry `raw` and no `pixels`.
    """

    def __init__(
        self,
        records: Sequence[Record],
        encoder: RowEncoder,
        images: ImageSource,
        preprocessor: Preprocessor,
        *,
        sizes: Mapping[str, Size] | None = None,
        file: str = "(memory)",
        facts: RowFacts | None = None,
        threads: int = 4,
        raw_pixels: bool = False,
    ) -> None:
        self.records = records
        self.encoder = encoder
        self.images = images
        self.preprocessor = preprocessor
        self.sizes = sizes
        self.file = file
        self._threads = threads
        self.raw_pixels = raw_pixels
        self._constant = preprocessor.constant_visual_tokens
        if facts is not None:
            self.__dict__["facts"] = facts

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]  # rows only, no slices
        """Build row `index`.

        Raises:
            RowError: its image is missing or corrupt, or the row cannot be encoded. The row is never replaced.
        """
        record = self.records[index]
        images = [self._load(record, number) for number in range(len(record.images))]
        tokens = [self._constant or self.preprocessor.visual_tokens(*image.size) for image in images]
        encoded = self.encoder.encode(record, tokens, file=self.file)
        kept = images[: encoded.images]
        side = self.preprocessor.image_size
        raw = tuple(self._raw(image) for image in kept) if self.raw_pixels else ()
        pixels = [] if self.raw_pixels else [self.preprocessor.pixels(image) for image in kept]
        pixels_ICHW = (
            np.concatenate(pixels)
            if len(pixels) > 1
            else pixels[0]
            if pixels
            else np.zeros((0, 3, side, side), np.float32)
        )
        sizes = tuple((image.height, image.width) for image in kept)
        return Example(encoded.input_ids, encoded.labels, pixels_ICHW, record.id, sizes, raw)

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Tokens of each row, visual tokens included: int32, R."""
        return self.facts.lengths

    @property
    def supervised(self) -> npt.NDArray[np.int32]:
        """Supervised tokens of each row: int32, R."""
        return self.facts.supervised

    @property
    def image_counts(self) -> npt.NDArray[np.int32]:
        """Images (tiles for AnyRes) of each row: int32, R."""
        return self.facts.image_counts

    @cached_property
    def facts(self) -> RowFacts:
        """Computed once, from text alone.

        Raises:
            RowError: of the first row that cannot be encoded; drop such rows beforehand with `check.check_rows`.
        """
        out = np.zeros((3, len(self)), dtype=np.int32)

        def chunk(start: int) -> None:
            rows = range(start, min(start + FACTS_CHUNK, len(self)))
            records = [self.records[index] for index in rows]
            found = facts_of(records, self.encoder, self.preprocessor, self.sizes, self.file)
            for index, facts in zip(rows, found, strict=True):
                if isinstance(facts, RowError):
                    raise facts
                out[:, index] = facts

        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(chunk, range(0, len(self), FACTS_CHUNK)))
        return RowFacts(out[0], out[1], out[2])

    def subset(self, indices: Sequence[int]) -> LazySupervisedDataset:
        """The rows at `indices`, in that order; facts already computed are taken along."""
        facts = None
        if "facts" in self.__dict__:
            at = np.asarray(indices, dtype=np.int64)
            facts = RowFacts(self.lengths[at], self.supervised[at], self.image_counts[at])
        return LazySupervisedDataset(
            _Chosen(self.records, indices),
            self.encoder,
            self.images,
            self.preprocessor,
            sizes=self.sizes,
            file=self.file,
            facts=facts,
            threads=self._threads,
            raw_pixels=self.raw_pixels,
        )

    def _raw(self, image: Any) -> npt.NDArray[np.uint8]:
        large = image.width * image.height > MAX_DEVICE_PIXELS
        return self.preprocessor.resized(image) if large else np.asarray(image)

    def _load(self, record: Record, number: int) -> Any:
        try:
            return self.images.load(record.images[number])
        except ImageError as error:
            name = "image" if len(record.images) == 1 else f"image[{number}]"
            found = f"{error.ref} ({error.detail})"
            raise RowError(self.file, record.index, name, found, error.expected, problem=error.problem) from error


def facts_of(
    records: Sequence[Record],
    encoder: RowEncoder,
    preprocessor: Preprocessor,
    sizes: Mapping[str, Size] | None,
    file: str,
) -> list[tuple[int, int, int] | RowError]:
    """(tokens, supervised tokens, images or tiles) of each row, or why it cannot be encoded.

    Raises:
        DataError: AnyRes, and the size of an image is not known.
    """
    constant = preprocessor.constant_visual_tokens
    if constant is not None:
        own: list[list[Size]] = [[] for _ in records]
        counts = [[constant] * len(record.images) for record in records]
    else:
        own = [_sizes_of(record, sizes, file) for record in records]
        counts = [[preprocessor.visual_tokens(*size) for size in row] for row in own]
    found: list[tuple[int, int, int] | RowError] = []
    for row, encoded in zip(own, encoder.encode_all(records, counts, file=file), strict=True):
        if isinstance(encoded, RowError):
            found.append(encoded)
            continue
        tiles = sum(preprocessor.tile_count(*size) for size in row[: encoded.images])
        found.append((len(encoded.input_ids), encoded.supervised, encoded.images if constant is not None else tiles))
    return found


def _sizes_of(record: Record, sizes: Mapping[str, Size] | None, file: str) -> list[Size]:
    if sizes is None or any(ref not in sizes for ref in record.images):
        raise DataError(
            f"{file}: row {record.index}: with AnyRes, lengths need the images' sizes; pass those `check_rows` found"
        )
    return [sizes[ref] for ref in record.images]


def split_validation(rows: int, validation_rows: int, seed: int) -> tuple[list[int], list[int]]:
    """(training, validation) indices: the validation rows are the last of a shuffle that depends on `seed` alone.

    Both are sorted, so that the training rows keep the file's order.

    Raises:
        DataError: as many validation rows as rows, or more.
    """
    if validation_rows >= rows:
        raise DataError(
            f"validation_rows: found {validation_rows}, with {rows} usable rows; expected fewer than there are rows"
        )
    shuffled = np.random.Generator(np.random.PCG64([seed, 0x5A11])).permutation(rows)
    cut = rows - validation_rows
    return sorted(shuffled[:cut].tolist()), sorted(shuffled[cut:].tolist())


class _Chosen(Sequence[Record]):
    def __init__(self, records: Sequence[Record], indices: Sequence[int]) -> None:
        self._records = records
        self._indices = np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]  # rows only, no slices
        return self._records[int(self._indices[index])]


def fingerprint_of(*parts: bytes | str) -> str:
    """SHA-256 in hex over the parts, each with its length, so that no two lists of parts look alike."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
