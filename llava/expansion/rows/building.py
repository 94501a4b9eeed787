"""From a job and its ledger to files: rows, provenance, dropped replies, mixture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from llava import storage
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.settled import Unusable
from llava.expansion.gates import Panel
from llava.expansion.job import Job
from llava.expansion.rows.assembly import Opined, assemble
from llava.expansion.rows.mixture import PartCount, load_mixture, mix
from llava.expansion.rows.naive import ImagePosition, naive_rows
from llava.expansion.rows.provenance import Provenance
from llava.expansion.rows.regions import RegionFrame, region_rows
from llava.expansion.rows.row import Row, RowFile
from llava.expansion.rows.sampling import Sampler


@dataclass(frozen=True)
class RowOptions:
    """How rows look, whatever their kind.

    Attributes:
        naive_question: `pretrain_data` asks a brief question before each caption.
        captions_per_image: naive pairs an image in `pretrain_data`; 0: every caption.
        mixture: file that combines generated and external data; empty: none.
    """

    image_position: ImagePosition = "before"
    region_frame: RegionFrame = "padded"
    region_turns: int = 6
    naive_question: bool = False
    captions_per_image: int = 1
    mixture: str = ""


@dataclass
class Built:
    """What was written."""

    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    teachers: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    parts: list[PartCount] = field(default_factory=list)


def write_naive(job: Job, options: RowOptions, uri: str) -> int:
    """Write the alignment stage's naive pairs; returns their number."""
    with RowFile(uri) as file:
        for row in naive_rows(
            job.images(),
            questions=job.recipe.questions[job.recipe.brief_questions],
            with_question=options.naive_question,
            image_position=options.image_position,
            captions_per_image=options.captions_per_image,
            seed=job.seed,
        ):
            file.add(row.as_json())
    return file.count


def build_rows(
    job: Job,
    ledger: Ledger,
    panel: Panel,
    sampler: Sampler,
    uri: str,
    *,
    options: RowOptions,
    unusable: Unusable,
    progress: Callable[[int, int], None],
    opinions: Sequence[Opined] = (),
) -> Built:
    """Write the instruction rows to `uri`, and beside it `.provenance.jsonl` and `.dropped.jsonl`.

    Args:
        opinions: asked about each row that passed the gates; what they hold against one drops it.

    With a mixture file the generated rows go to `.generated.json` and `uri` holds the mixed list.

    Raises:
        DataError: a part of the mixture cannot be used.
    """
    built = Built()
    kinds: list[str] = []
    generated = f"{uri}.generated.json" if options.mixture else uri
    provenance = Provenance(job.recipe, [*panel.names, *(opined.name for opined in opinions)])
    with ExitStack() as files:
        rows = files.enter_context(RowFile(generated))
        origins = files.enter_context(RowFile(f"{uri}.provenance.jsonl", lines=True))
        drops = files.enter_context(RowFile(f"{uri}.dropped.jsonl", lines=True))

        def keep(row: Row) -> None:
            rows.add(row.as_json())
            built.kept[row.kind] += 1
            kinds.append(row.kind)

        for row in _built_in_rows(job, options):
            keep(row)
            sampler.see_row(row)
            origins.add(provenance.built_in(row))
        results = assemble(
            job.requests(),
            ledger,
            job.recipe,
            panel,
            unusable=unusable,
            image_position=options.image_position,
            seed=job.seed,
            opinions=opinions,
        )
        for done, result in enumerate(results, 1):
            if result.row is not None:
                keep(result.row)
                origins.add(provenance.kept(result))
            else:
                built.dropped[result.request.kind] += 1
                built.unanswered += result.entry is None
                drops.add(provenance.dropped(result))
            if result.entry is not None:
                built.teachers[result.entry.model] += 1
                sampler.see(result)
            progress(done, sum(built.dropped.values()))
    built.rows = rows.count
    if options.mixture:
        mixed, built.parts = mix(load_mixture(options.mixture), generated, kinds)
        with RowFile(uri) as file:
            for mixed_row in mixed:
                file.add(mixed_row)
        built.rows = file.count
    elif storage.exists(f"{uri}.generated.json"):
        storage.delete(f"{uri}.generated.json")  # of an earlier run with a mixture
    return built


def _built_in_rows(job: Job, options: RowOptions) -> Iterator[Row]:
    if "naive" in job.kinds:
        yield from naive_rows(
            job.images(),
            questions=job.recipe.questions[job.recipe.brief_questions],
            with_question=True,
            image_position=options.image_position,
            captions_per_image=1,
            # Another draw than for the alignment stage: an image then brings two of its captions.
            seed=job.seed + 1,
        )
    if "region" in job.kinds:
        yield from region_rows(
            job.images(),
            frame=options.region_frame,
            image_position=options.image_position,
            max_turns=options.region_turns,
            seed=job.seed,
        )
