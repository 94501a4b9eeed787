"""Mixtures: generated and external data sets combined into one training list, the same for the same file and data."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from llava import storage
from llava.config import Strict, validate
from llava.data.records import RecordFile, read_records, row_from_record
from llava.errors import DataError

GENERATED = "generated"


class Part(Strict):
    """One source of a mixture."""

    data: str = Field(
        description="`generated`, `generated:<kind>`, or path or URI of LLaVA JSON (relative: to the mixture)"
    )
    weight: float = Field(
        1.0,
        gt=0,
        le=1000,
        allow_inf_nan=False,
        description="Share of its rows; above 1 rows repeat: 2.5 is twice all and once half",
    )
    limit: int | None = Field(None, ge=1, description="At most so many rows after weighting")
    image_root: str = Field("", description="Put before each image path, e.g. gqa/images")
    seed: int | None = Field(None, description="Default: the mixture's")


class Mixture(Strict):
    """A mixture file."""

    name: str
    seed: int = 0
    shuffle: bool = True
    max_bad_rows: float = Field(0.01, ge=0, le=1, description="Largest share of unusable rows in a part")
    parts: list[Part] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class PartCount:
    """What one part came to."""

    data: str
    rows: int
    usable: int
    taken: int
    problems: Mapping[str, int]


def load_mixture(uri: str) -> Mixture:
    """Read a mixture file; relative `data` paths are taken from its folder.

    Raises:
        SettingsError: not a mixture.
    """
    mixture = validate(Mixture, storage.read_yaml(uri), uri)
    folder = uri.rpartition("/")[0]
    parts = [part.model_copy(update={"data": _absolute(part.data, folder)}) for part in mixture.parts]
    return mixture.model_copy(update={"parts": parts})


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
        seed = mixture.seed if part.seed is None else part.seed
        taken = _weighted(indices, part, random.Random(f"{seed}:{number}:{part.data.rpartition('/')[2]}"))
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
            row["image"] = _rooted(root, image) if isinstance(image, str) else [_rooted(root, one) for one in image]
        yield row


def _weighted(indices: list[int], part: Part, rng: random.Random) -> list[int]:
    whole, rest = divmod(part.weight, 1.0)
    taken = indices * int(whole)
    taken += rng.sample(indices, round(rest * len(indices)))
    if part.limit is not None and len(taken) > part.limit:
        taken = rng.sample(taken, part.limit)
    return taken


def _rooted(root: str, image: str) -> str:
    return f"{root.rstrip('/')}/{image.lstrip('/')}"


def _absolute(data: str, folder: str) -> str:
    if not folder or data == GENERATED or "://" in data or data.startswith((f"{GENERATED}:", "/")):
        return data
    return storage.join(folder, data)
