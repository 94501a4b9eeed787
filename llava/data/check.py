"""The check of all rows before anything is paid for: every image looked at, every row encoded, faults counted.

The training stage runs it over what it reads and goes on without the unusable rows, up to its threshold; `llava data
check` runs it alone and writes a report. Each image is looked at once, however many rows use it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np

from llava.data.dataset import RowFacts, Size, row_facts
from llava.data.images import ImageError, ImageSource
from llava.data.labels import RowEncoder
from llava.data.preprocess import Preprocessor
from llava.data.records import Record, RecordFile, check_threshold
from llava.errors import RowError

Depth = Literal["header", "full"]
Progress = Callable[[str, int, int], None]
_ROLE_MARKER = re.compile(r"\b(USER|ASSISTANT|Human|Assistant):|\[/?INST\]|<\|im_(start|end)\|>|^###", re.MULTILINE)


@dataclass
class CheckResult:
    """What a check found.

    Attributes:
        good: positions in `file.records` of the usable rows.
        facts: lengths, supervised tokens and images of those rows, in the same order.
        sizes: reference -> (width, height) of every readable image.
        problems: one per unusable row, those of reading the file included.
        notes: things worth knowing that make no row unusable -> rows: `as-long-as-max-length` (most were cut),
            `role-marker-in-text`, and what the reader put right.
        total: rows in the file.
    """

    good: list[int]
    facts: RowFacts
    sizes: dict[str, Size]
    problems: list[RowError]
    notes: Counter[str] = field(default_factory=Counter)
    total: int = 0

    @property
    def counts(self) -> Counter[str]:
        """Unusable rows by problem."""
        return Counter(problem.problem for problem in self.problems)

    def stop_above(self, max_bad_rows: float) -> None:
        """Raise when too many rows are unusable.

        Raises:
            DataError: see `records.check_threshold`.
        """
        check_threshold(self.problems, self.total, max_bad_rows)


def check_rows(
    file: RecordFile,
    images: ImageSource,
    encoder: RowEncoder | None = None,
    preprocessor: Preprocessor | None = None,
    *,
    depth: Depth = "header",
    threads: int = 8,
    progress: Progress | None = None,
) -> CheckResult:
    """Look at every row of `file`.

    Args:
        images: where the images are.
        encoder: also encode each row; None checks structure and images only, and leaves `facts` zero.
        preprocessor: counts visual tokens; needed with `encoder`.
        depth: `header` reads each image and looks at its ends; `full` decodes it whole.
        threads: reading and decoding images.
        progress: called with ("images" or "rows", done, total).

    Raises:
        StorageError: the store does not answer. That is not the rows' fault, so it is not counted against them.
    """
    look = images.header if depth == "header" else _decoded_size(images)
    sizes, bad_images = _look_at_images(file.records, look, threads, progress)
    result = CheckResult(
        [], RowFacts(*(np.zeros(0, np.int32),) * 3), sizes, list(file.problems), Counter(file.repairs), file.total
    )
    facts: list[tuple[int, int, int]] = []
    for position, record in enumerate(file.records):
        try:
            _raise_for_images(record, bad_images, file.uri)
            if encoder is not None and preprocessor is not None:
                facts.append(row_facts(record, encoder, preprocessor, sizes, file.uri))
                if encoder.max_length is not None and facts[-1][0] == encoder.max_length:
                    result.notes["as-long-as-max-length"] += 1
        except RowError as problem:
            result.problems.append(problem)
            continue
        result.good.append(position)
        if any(_ROLE_MARKER.search(turn.text) for turn in record.turns):
            result.notes["role-marker-in-text"] += 1
        if progress is not None and position % 1000 == 999:
            progress("rows", position + 1, len(file.records))
    if progress is not None:
        progress("rows", len(file.records), len(file.records))
    columns = np.array(facts, dtype=np.int32).reshape(-1, 3).T if facts else np.zeros((3, len(result.good)), np.int32)
    result.facts = RowFacts(*columns)
    return result


def _decoded_size(images: ImageSource) -> Callable[[str], Size]:
    def look(ref: str) -> Size:
        image = images.load(ref)
        return image.width, image.height

    return look


def _look_at_images(
    records: Sequence[Record], look: Callable[[str], Size], threads: int, progress: Progress | None
) -> tuple[dict[str, Size], dict[str, ImageError]]:
    refs = dict.fromkeys(ref for record in records for ref in record.images)
    sizes: dict[str, Size] = {}
    bad: dict[str, ImageError] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="llava-check") as pool:
        for done, (ref, future) in enumerate(_bounded(pool, look, refs, threads * 16), start=1):
            try:
                sizes[ref] = future.result()
            except ImageError as error:
                bad[ref] = error
            if progress is not None and (done % 200 == 0 or done == len(refs)):
                progress("images", done, len(refs))
    return sizes, bad


def _bounded(
    pool: ThreadPoolExecutor, look: Callable[[str], Size], refs: Iterable[str], ahead: int
) -> Iterator[tuple[str, Future[Size]]]:
    waiting = iter(refs)
    running = [(ref, pool.submit(look, ref)) for ref in islice(waiting, ahead)]
    while running:
        batch, running = running, []
        for ref, future in batch:
            yield ref, future
            running += [(following, pool.submit(look, following)) for following in islice(waiting, 1)]


def _raise_for_images(record: Record, bad_images: dict[str, ImageError], file: str) -> None:
    for number, ref in enumerate(record.images):
        error = bad_images.get(ref)
        if error is not None:
            name = "image" if len(record.images) == 1 else f"image[{number}]"
            found = f"{ref} ({error.detail})"
            raise RowError(file, record.index, name, found, error.expected, problem=error.problem) from error
