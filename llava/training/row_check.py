"""The check of all rows before step 1: every image is there and looks whole, every row leaves something to train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from llava.data.dataset import RowFacts, row_facts
from llava.data.images import ImageError, ImageSource
from llava.data.labels import RowEncoder
from llava.data.preprocess import Preprocessor
from llava.data.records import Record
from llava.errors import DataError, RowError

Size = tuple[int, int]
_CHUNK = 256


@dataclass(frozen=True)
class CheckedRows:
    """What rank 0 found, for all ranks.

    Attributes:
        usable: positions in the checked records, ascending.
        facts: of the usable rows.
        sizes: image reference -> (width, height); kept for AnyRes only.
        problems: of the others.
    """

    usable: list[int]
    facts: RowFacts
    sizes: dict[str, Size]
    problems: list[RowError]


def check_rows(
    records: Sequence[Record],
    encoder: RowEncoder,
    images: ImageSource,
    preprocessor: Preprocessor,
    *,
    file: str,
    threads: int,
    progress: Callable[[int, int], None],
) -> CheckedRows:
    """Check every row; an image several rows share is read once.

    Raises:
        StorageError: the store refuses or does not answer; that is no row's fault.
    """
    sizes: dict[str, Size | ImageError] = {}
    facts_3R = np.zeros((3, len(records)), dtype=np.int32)
    problems: dict[int, RowError] = {}
    done = 0

    def header(ref: str) -> tuple[str, Size | ImageError]:
        try:
            return ref, images.header(ref)
        except ImageError as error:
            return ref, error

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(records), _CHUNK):
            chunk = [records[index] for index in range(start, min(start + _CHUNK, len(records)))]
            new = dict.fromkeys(ref for record in chunk for ref in record.images if ref not in sizes)
            sizes.update(pool.map(header, new))
            known = {
                ref: size for record in chunk for ref in record.images if not isinstance(size := sizes[ref], ImageError)
            }

            def facts(record: Record, known: dict[str, Size] = known) -> tuple[int, int, int] | RowError:
                for number, ref in enumerate(record.images):
                    if isinstance(error := sizes[ref], ImageError):
                        return _row_error(file, record, number, error)
                try:
                    return row_facts(record, encoder, preprocessor, known, file)
                except RowError as error:
                    return error

            for offset, found in enumerate(pool.map(facts, chunk)):
                if isinstance(found, RowError):
                    problems[start + offset] = found
                else:
                    facts_3R[:, start + offset] = found
            done += len(chunk)
            progress(done, len(records))
    usable = [index for index in range(len(records)) if index not in problems]
    kept_3R = facts_3R[:, usable]
    tiled = {ref: size for ref, size in sizes.items() if not isinstance(size, ImageError)} if preprocessor.tiles else {}
    return CheckedRows(usable, RowFacts(*kept_3R), tiled, list(problems.values()))


def check_share(problems: Sequence[RowError], total: int, allowed: float, file: str) -> None:
    """Refuse to train when too many rows would be missing.

    Raises:
        DataError: with the share, the limit, the classes of problems and the first rows.
    """
    if not problems or len(problems) <= allowed * total:
        return
    counts: dict[str, int] = {}
    for problem in problems:
        counts[problem.problem] = counts.get(problem.problem, 0) + 1
    classes = ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
    first = "\n  ".join(str(problem) for problem in problems[:5])
    raise DataError(
        f"{file}: {len(problems)} of {total} rows cannot be used ({classes}), more than max_bad_rows = {allowed:g} "
        f"allows. Mend them, or raise max_bad_rows in the recipe. The first:\n  {first}"
    )


def _row_error(file: str, record: Record, number: int, error: ImageError) -> RowError:
    name = "image" if len(record.images) == 1 else f"image[{number}]"
    return RowError(file, record.index, name, f"{error.ref} ({error.detail})", error.expected, problem=error.problem)
