"""The check of all rows before anything is paid for: every image looked at, every row encoded, faults counted.

The training stage runs it over what it reads and continues without the unusable rows, up to its threshold; `llava data
check` runs it alone and writes a report. Each image is looked at once, however many rows use it.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from llava.data.dataset import FACTS_CHUNK, RowFacts, Size, facts_of
from llava.data.images import ImageError, ImageSource
from llava.data.labels import RowEncoder
from llava.data.preprocess import Preprocessor
from llava.data.records import Record, RecordFile, check_threshold
from llava.errors import RowError

Depth = Literal["header", "full"]
Progress = Callable[[str, int, int], None]
A = TypeVar("A")
B = TypeVar("B")
_ROLE_MARKER = re.compile(r"\b(USER|ASSISTANT|Human|Assistant):|\[/?INST\]|<\|im_(start|end)\|>|^###", re.MULTILINE)


@dataclass(frozen=True)
class _Looked:
    """What was found of a chunk of rows: a few bytes a row, because a process may hold those of a million.

    Attributes:
        facts_N3: int32, tokens, supervised tokens and images of each row; nothing of the unusable ones.
        faults: place in the chunk -> why that row is unusable, in order.
        marked: usable rows whose text has role markers.
    """

    facts_N3: npt.NDArray[np.int32]
    faults: dict[int, RowError]
    marked: int


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
    workers: Workers | None = None,
) -> CheckResult:
    """Look at every row of `file`.

    Args:
        images: where the images are.
        encoder: also encode each row; None checks structure and images only, and leaves `facts` zero.
        preprocessor: counts visual tokens; needed with `encoder`.
        depth: `header` reads each image and looks at its ends; `full` decodes it whole.
        threads: reading and decoding images, and encoding rows.
        progress: called with ("images" or "rows", done, total).
        workers: processes that share the work; each calls this with the same file and gets the whole result.

    Raises:
        StorageError: the store does not answer. That is not the rows' fault, so it is not counted against them.
    """
    workers = workers or _Alone()
    look = images.header if depth == "header" else _decoded_size(images)
    refs = list(dict.fromkeys(ref for record in file.records for ref in record.images))
    mine = refs[workers.rank :: workers.world_size]

    def shown(what: str) -> Callable[[int, int], None] | None:
        return functools.partial(progress, what) if progress is not None else None

    seen = workers.each("checking images", lambda note: _look_at_images(mine, look, threads, note), shown("images"))
    sizes: dict[str, Size] = {}
    bad_images: dict[str, ImageError] = {}
    for rank, (sizes_N2, bad) in enumerate(seen):
        theirs = refs[rank :: workers.world_size]
        sizes |= {ref: (w, h) for ref, (w, h) in zip(theirs, sizes_N2.tolist(), strict=True) if w}
        bad_images |= bad
    result = CheckResult(
        [], RowFacts(*(np.zeros(0, np.int32),) * 3), sizes, list(file.problems), Counter(file.repairs), file.total
    )
    starts = range(0, len(file.records), FACTS_CHUNK)

    def look_at(start: int) -> _Looked:
        return _look_at_rows(
            file.records[start : start + FACTS_CHUNK], bad_images, encoder, preprocessor, sizes, file.uri
        )

    def look_at_mine(note: Callable[[int, int], None]) -> list[_Looked]:
        own = starts[workers.rank :: workers.world_size]
        found: list[_Looked] = []
        rows = 0
        total = sum(min(FACTS_CHUNK, len(file.records) - start) for start in own)
        note(0, total)  # a rate is counted from here
        with ThreadPoolExecutor(threads, thread_name_prefix="llava-check") as pool:
            for _, future in _bounded(pool, look_at, own, threads * 2):
                found.append(future.result())
                rows += len(found[-1].facts_N3)
                note(rows, total)
        return found

    parts = workers.each("checking rows", look_at_mine, shown("rows"))
    facts = [np.zeros((0, 3), np.int32)]
    for chunk, start in enumerate(starts):
        part = parts[chunk % workers.world_size][chunk // workers.world_size]
        sound_N = np.ones(len(part.facts_N3), dtype=bool)
        sound_N[list(part.faults)] = False
        result.problems += part.faults.values()
        result.good += (start + np.flatnonzero(sound_N)).tolist()
        facts.append(part.facts_N3[sound_N])
        cut = int((facts[-1][:, 0] == encoder.max_length).sum()) if encoder is not None and encoder.max_length else 0
        result.notes += Counter({"as-long-as-max-length": cut, "role-marker-in-text": part.marked})  # drops zeros
    result.problems = [file.placed(problem) for problem in result.problems]
    result.facts = RowFacts(*np.ascontiguousarray(np.concatenate(facts).T))
    return result


class Workers(Protocol):
    """Processes that look at the same rows, each at its part of them."""

    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    def each(
        self, what: str, work: Callable[[Callable[[int, int], None]], A], shown: Callable[[int, int], None] | None, /
    ) -> list[A]:
        """Run `work` here, which reports (done, total) of its part; what it gave on every rank, in their order."""
        ...


class _Alone:
    rank, world_size = 0, 1

    def each(
        self, what: str, work: Callable[[Callable[[int, int], None]], A], shown: Callable[[int, int], None] | None, /
    ) -> list[A]:
        return [work(shown or (lambda done, total: None))]


def _look_at_rows(
    records: Sequence[Record],
    bad_images: Mapping[str, ImageError],
    encoder: RowEncoder | None,
    preprocessor: Preprocessor | None,
    sizes: Mapping[str, Size],
    file: str,
) -> _Looked:
    faults = [_fault_of_images(record, bad_images, file) for record in records]
    sound = [record for record, fault in zip(records, faults, strict=True) if fault is None]
    facts: Iterator[tuple[int, int, int] | RowError] = iter([(0, 0, 0)] * len(sound))
    if encoder is not None and preprocessor is not None:
        facts = iter(facts_of(sound, encoder, preprocessor, sizes, file))
    facts_N3, unusable, marked = np.zeros((len(records), 3), np.int32), {}, 0
    for row, (record, fault) in enumerate(zip(records, faults, strict=True)):
        found = fault if fault is not None else next(facts)
        if isinstance(found, RowError):
            unusable[row] = found
            continue
        facts_N3[row] = found
        marked += any(_ROLE_MARKER.search(turn.text) for turn in record.turns)
    return _Looked(facts_N3, unusable, marked)


def _decoded_size(images: ImageSource) -> Callable[[str], Size]:
    def look(ref: str) -> Size:
        image = images.load(ref)
        return image.width, image.height

    return look


def _look_at_images(
    refs: Sequence[str], look: Callable[[str], Size], threads: int, note: Callable[[int, int], None]
) -> tuple[npt.NDArray[np.int32], dict[str, ImageError]]:
    """(width, height) of each reference, int32, N x 2, 0 where its image cannot be used; and what is wrong there."""
    sizes_N2 = np.zeros((len(refs), 2), dtype=np.int32)
    bad: dict[str, ImageError] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="llava-check") as pool:
        for done, (ref, future) in enumerate(_bounded(pool, look, refs, threads * 16)):
            try:
                sizes_N2[done] = future.result()
            except ImageError as error:
                bad[ref] = error
            if (done + 1) % 200 == 0 or done + 1 == len(refs):
                note(done + 1, len(refs))
    return sizes_N2, bad


def _bounded(
    pool: ThreadPoolExecutor, work: Callable[[A], B], items: Iterable[A], ahead: int
) -> Iterator[tuple[A, Future[B]]]:
    """Items with their work, in order, at most `ahead` of it under way."""
    waiting = iter(items)
    running = deque((item, pool.submit(work, item)) for item in islice(waiting, ahead))
    while running:
        yield running.popleft()
        running.extend((item, pool.submit(work, item)) for item in islice(waiting, 1))


def _fault_of_images(record: Record, bad_images: Mapping[str, ImageError], file: str) -> RowError | None:
    for number, ref in enumerate(record.images):
        error = bad_images.get(ref)
        if error is not None:
            name = "image" if len(record.images) == 1 else f"image[{number}]"
            found = f"{ref} ({error.detail})"
            return RowError(file, record.index, name, found, error.expected, problem=error.problem)
    return None
