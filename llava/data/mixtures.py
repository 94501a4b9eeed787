"""Mixtures: several sources of rows combined into one list by weight, the same for the same file and data.

The order of the mixed rows depends on the mixture's seed and the sources alone, so step k of a training on it sees the
same rows in every run, and a resumed run needs no more than the number of its step.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pydantic import Field

from llava import storage
from llava.data.records import Record, RecordFile, RecordList, check_threshold
from llava.data.row_sources import HUB
from llava.errors import DataError, RowError, SettingsError
from llava.manifest import sha256
from llava.validation import Strict, validate

GENERATED = "generated"


class Part(Strict):
    """One source of a mixture."""

    data: str = Field(
        description="Path or URI of rows in any form of docs/rows.md (relative: to the mixture); in an expansion also "
        "`generated` and `generated:<kind>`"
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


def load_mixture(uri: str) -> Mixture:
    """Read a mixture file; relative `data` paths are taken from its folder.

    Raises:
        SettingsError: not a mixture.
    """
    mixture = validate(Mixture, storage.read_yaml(uri), uri)
    folder = uri.rpartition("/")[0]
    parts = [part.model_copy(update={"data": _absolute(part.data, folder)}) for part in mixture.parts]
    return mixture.model_copy(update={"parts": parts})


def weighted(indices: Sequence[int], part: Part, mixture: Mixture, number: int) -> list[int]:
    """Which of a part's rows are taken, and how often; the same for the same mixture.

    Args:
        indices: the part's usable rows.
        number: the part's place in the mixture.
    """
    seed = mixture.seed if part.seed is None else part.seed
    rng = random.Random(f"{seed}:{number}:{part.data.rpartition('/')[2]}")
    whole, rest = divmod(part.weight, 1.0)
    taken = list(indices) * int(whole)
    taken += rng.sample(list(indices), round(rest * len(indices)))
    if part.limit is not None and len(taken) > part.limit:
        taken = rng.sample(taken, part.limit)
    return taken


def rooted(root: str, image: str) -> str:
    """An image's reference below a part's `image_root`; a reference that is a place of its own stays."""
    if not root or "://" in image or image.startswith(("/", "data:")):
        return image
    return f"{root.rstrip('/')}/{image}"


def read_mixture(uri: str) -> RecordFile:
    """The rows of a mixture as one file of records, whose order is the mixture's.

    Raises:
        SettingsError: not a mixture, or a part that only an expansion can fill.
        DataError: a part cannot be used, or has more unusable rows than allowed.
    """
    from llava.data.records import read_records

    mixture = load_mixture(uri)
    files: list[RecordFile] = []
    chosen: list[tuple[int, int]] = []
    for number, part in enumerate(mixture.parts):
        if part.data.split(":")[0] == GENERATED:
            raise SettingsError(f"{uri}: part {part.data!r} is filled by an expansion; training wants files of rows")
        file = read_records(part.data)
        check_threshold(file.problems, file.total, mixture.max_bad_rows)
        chosen += [(number, index) for index in weighted(range(len(file.records)), part, mixture, number)]
        files.append(file)
    if not chosen:
        raise DataError(f"{uri}: no rows are taken; expected weights that leave some")
    if mixture.shuffle:
        random.Random(f"{mixture.seed}:order").shuffle(chosen)
    starts = [0]
    for file in files:
        starts.append(starts[-1] + file.total)

    def mixed() -> Iterator[Record]:
        for number, index in chosen:
            record, root = files[number].records[index], mixture.parts[number].image_root
            images = tuple(rooted(root, image) for image in record.images)
            yield replace(record, images=images, index=starts[number] + record.index)

    problems: list[RowError] = [problem for file in files for problem in file.problems]
    made = RecordFile(uri, RecordList(mixed()), problems, total=len(chosen) + len(problems))
    made.sha256 = _identity(mixture, files)
    for file, start in zip(files, starts, strict=False):
        made.repairs += file.repairs
        made.places |= file.places
        made.starts += [(start + first, name) for first, name in file.starts or [(0, file.uri)]]
    return made


def _identity(mixture: Mixture, files: Sequence[RecordFile]) -> str:
    """Hash of all that decides the mixed rows; where the sources lie does not."""
    parts = [part.model_dump(exclude={"data"}) | {"name": part.data.rpartition("/")[2]} for part in mixture.parts]
    whole = [mixture.model_dump(exclude={"parts"}), parts, [file.sha256 for file in files]]
    return sha256(json.dumps(whole, sort_keys=True).encode())


def _absolute(data: str, folder: str) -> str:
    def one(part: str) -> str:
        own = part == GENERATED or part.startswith((f"{GENERATED}:", "/", HUB)) or "://" in part
        return part if own else storage.join(folder, part)

    return ",".join(one(part.strip()) for part in data.split(",")) if folder else data
