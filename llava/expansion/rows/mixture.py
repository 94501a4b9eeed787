"""Mixtures: generated and external data sets combined into one training list, the same for the same file and data."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llava.data.mixtures import GENERATED, Mixture, load_mixture, rooted, weighted
from llava.data.records import RecordFile, read_records, row_from_record
from llava.errors import DataError

__all__ = ["GENERATED", "Mixture", "PartCount", "load_mixture", "mix"]


@dataclass(frozen=True, slots=True)
class PartCount:
    """What one part came to."""

    data: str
    rows: int
    usable: int
    taken: int
    problems: Mapping[str, int]


def mix(mixture: Mixture, generated_uri: str, kinds: Sequence[str]) -> tuple[Iterator[dict[str, Any]], list[PartCount]]:
    """The mixed rows, and what each part gave.

    Args:
        generated_uri: the generated rows as LLaVA JSON.
        kinds: kind of each generated row, in order.

    Raises:
        DataError: a part has more unusable rows than allowed, or none that can be used.
    """
    files: dict[str, RecordFile] = {}
    chosen: list[tuple[str, int, str]] = []
    counts = []
    for number, part in enumerate(mixture.parts):
        name, _, kind = part.data.partition(":") if part.data.startswith(GENERATED) else (part.data, "", "")
        uri = generated_uri if name == GENERATED else part.data
        if uri not in files:
            files[uri] = read_records(uri)
        file = files[uri]
        indices = [k for k in range(len(file.records)) if not kind or kinds[k] == kind]
        problems: dict[str, int] = {}
        for problem in file.problems:
            problems[problem.problem] = problems.get(problem.problem, 0) + 1
        if file.total and len(file.problems) > mixture.max_bad_rows * file.total:
            raise DataError(
                f"{part.data}: {len(file.problems)} of {file.total} rows cannot be used, more than max_bad_rows "
                f"({mixture.max_bad_rows:g}); the first: {file.problems[0]}"
            )
        if not indices:
            known = ", ".join(dict.fromkeys(kinds)) or "none"
            raise DataError(f"mixture {mixture.name!r}: part {part.data!r} has no rows; generated kinds: {known}")
        taken = weighted(indices, part, mixture, number)
        counts.append(PartCount(part.data, file.total, len(indices), len(taken), problems))
        chosen += [(uri, index, part.image_root) for index in taken]
    if mixture.shuffle:
        random.Random(f"{mixture.seed}:order").shuffle(chosen)
    return _rows(chosen, files), counts


def _rows(chosen: Sequence[tuple[str, int, str]], files: Mapping[str, RecordFile]) -> Iterator[dict[str, Any]]:
    for uri, index, root in chosen:
        row = row_from_record(files[uri].records[index])
        if root and "image" in row:
            image = row["image"]
            row["image"] = rooted(root, image) if isinstance(image, str) else [rooted(root, one) for one in image]
        yield row
