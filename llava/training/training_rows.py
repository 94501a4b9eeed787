"""The rows a rank trains on: read, checked by all ranks together, split, planned.

Each rank looks at its share of the images and encodes its share of the rows, so that a thousand missing images are
found before a model is loaded. What they found is kept beside the checkpoints: a run that is started again looks at
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from llava import storage
from llava.data.batch_plan import BatchPlan
from llava.data.batches import Batch, BatchLoader, StepBatches
from llava.data.check import CheckResult, check_rows
from llava.data.dataset import LazySupervisedDataset, fingerprint_of, split_validation
from llava.data.device_preprocess import DevicePreprocessor
from llava.data.images import ImageSource
from llava.data.labels import RowEncoder
from llava.data.preprocess import Preprocessor
from llava.data.records import Record, RecordFile, read_records
from llava.data.row_sources import JSON, form_of
from llava.data.templates import get_template
from llava.errors import DataError, RowError
from llava.image_token import IMAGE_TOKEN
from llava.model.node_copies import node_file
from llava.telemetry import Telemetry
from llava.training import row_verdicts
from llava.training.job import Job, Problem
from llava.training.together import Ranks, gathered, in_touch

if TYPE_CHECKING:
    from llava.model.generation import GenerationRequest

REMOTE_THREADS = 32


@dataclass
class TrainingRows:
    """Rows and their plan on one rank.

    Attributes:
        device: of this rank, where `to_device` brings batches.
        preprocess: makes pixels of raw images there, with the recipe's `device_preprocess`; else None.
        problems: rows left out.
        fingerprint: of the rows, their lengths and their order: what a checkpoint belongs to.
    """

    train: LazySupervisedDataset
    validation: LazySupervisedDataset | None
    plan: BatchPlan
    rank: int
    workers: int
    device: torch.device
    preprocess: DevicePreprocessor | None
    sha256: str
    problems: list[Problem]
    fingerprint: str

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.plan.total_steps

    def batches(self, first_step: int) -> Iterator[StepBatches]:
        """This rank's part of every step from `first_step` on."""
        return iter(self._loader(self.train, self.plan, first_step))

    def to_device(self, batch: Batch) -> Batch:
        """The batch on this rank's device, its images as pixels. The host does not wait for the copies."""
        return batch.to(self.device, non_blocking=True, preprocess=self.preprocess)

    def heaviest_micro_batches(self) -> list[Batch]:
        """Micro-batches as heavy as any can get, in tokens and in images."""
        loader = self._loader(self.train, self.plan)
        return [loader.batch(rows) for rows in self.plan.heaviest_micro_batches()]

    def validation_batches(self) -> Iterator[StepBatches]:
        """This rank's part of the validation rows; the same number of micro-batches on every rank."""
        assert self.validation is not None
        data = self.validation
        recipe = self.plan.recipe.model_copy(update={"epochs": 1.0, "max_steps": None})
        plan = BatchPlan(data.lengths, data.supervised, data.image_counts, recipe, self.plan.world_size)
        return iter(self._loader(data, plan))

    def sample_requests(self, count: int) -> list[tuple[Record, GenerationRequest]]:
        """The first validation rows as questions to the model."""
        from llava.model.generation import GenerationRequest

        assert self.validation is not None
        template = self.validation.encoder.template
        chosen = []
        for index in range(min(count, len(self.validation))):
            record = self.validation.records[index]
            first = record.turns[:1]
            shown = first[0].text.count(IMAGE_TOKEN)
            images = [self.validation.images.load(ref) for ref in record.images[:shown]]
            chosen.append((record, GenerationRequest(template.prompt(first), images)))
        return chosen

    def record_id(self, row: int) -> str:
        """How messages name a row: its id and where it stands in the file."""
        record = self.train.records[row]
        return f"{record.id} (row {record.index})"

    def _loader(self, data: LazySupervisedDataset, plan: BatchPlan, first_step: int = 0) -> BatchLoader:
        on_gpu = self.device.type == "cuda"
        return BatchLoader(data, plan, self.rank, first_step, self.workers, pin_memory=on_gpu)


def load_rows(
    job: Job, processor: Any, telemetry: Telemetry, rank: int, world_size: int, device: torch.device
) -> TrainingRows:
    """Read, check and plan the job's rows; collective.

    Raises:
        DataError: the file cannot be used, or more rows than `max_bad_rows` are unusable.
        SettingsError: `device_preprocess` with an image processor it does not cover.
    """
    recipe = job.train
    encoder = RowEncoder(get_template(recipe.template), processor.tokenizer, max_length=recipe.max_length)
    preprocessor = Preprocessor.from_processor(processor)
    preprocess = DevicePreprocessor(preprocessor.settings, device) if recipe.device_preprocess else None
    file = _read_by_all(job)
    images = ImageSource(job.images_uri, places=file.places)
    checked = _checked(job, file, images, encoder, preprocessor, telemetry)
    everything = LazySupervisedDataset(
        file.records,
        encoder,
        images,
        preprocessor,
        sizes=checked.sizes,
        file=job.data_uri,
        raw_pixels=recipe.device_preprocess,
    )
    usable = everything.subset(checked.good)
    usable.__dict__["facts"] = checked.facts
    train_rows, validation_rows = split_validation(len(usable), recipe.validation_rows, recipe.seed)
    train = usable.subset(train_rows)
    plan = BatchPlan(train.lengths, train.supervised, train.image_counts, recipe, world_size)
    if len(train) < recipe.global_batch_size:
        telemetry.note(f"warning: {len(train)} rows are fewer than global_batch_size {recipe.global_batch_size}")
    return TrainingRows(
        train=train,
        validation=usable.subset(validation_rows) if validation_rows else None,
        plan=plan,
        rank=rank,
        workers=recipe.loader_workers,
        device=device,
        preprocess=preprocess,
        sha256=file.sha256,
        problems=[_problem(error) for error in checked.problems],
        fingerprint=fingerprint_of(plan.fingerprint(), file.sha256),
    )


def _read_by_all(job: Job) -> RecordFile:
    """The data file, fetched once a node, and the same on every rank.

    Raises:
        DataError: it cannot be used, or ranks read different bytes.
    """

    def read(_: object) -> RecordFile:
        if storage.is_remote(job.data_uri) and form_of(job.data_uri) == JSON and storage.size(job.data_uri) is not None:
            return read_records(job.data_uri, node_file(job.data_uri).read_bytes())
        return read_records(job.data_uri)

    file = in_touch("reading the data file", read)
    sums = gathered((file.sha256, job.data_uri))
    for rank, (sha256, uri) in enumerate(sums):
        if sha256 != sums[0][0]:
            raise DataError(
                f"data: ranks read different rows: rank 0 has {sums[0][1]} with sha256 {sums[0][0][:12]}..., "
                f"rank {rank} {uri} with {sha256[:12]}...; give every node the same file"
            )
    return file


def _checked(
    job: Job,
    file: RecordFile,
    images: ImageSource,
    encoder: RowEncoder,
    preprocessor: Preprocessor,
    telemetry: Telemetry,
) -> CheckResult:
    """What the check of an earlier start found, or a check by all ranks together, which is kept.

    Raises:
        DataError: more rows than `max_bad_rows` are unusable.
    """
    key = row_verdicts.key(file, job.images_uri, encoder, preprocessor)
    workers = Ranks()
    folders = [uri for uri in (job.checkpoints_uri, job.resume_uri) if uri]
    found = workers.each(
        "looking for an earlier check", lambda _: row_verdicts.recall(folders, key, file) if workers.rank == 0 else None
    )[0]
    if found is not None:
        place, verdict = found
        telemetry.note(f"{verdict.total} rows were checked by an earlier start: {place}")
        verdict.stop_above(job.train.max_bad_rows)
        return verdict
    # A store bears many reads at a time, and each of them waits most of its time.
    threads = REMOTE_THREADS if storage.is_remote(images.images_uri) else max(2, job.train.loader_workers)
    checked = check_rows(
        file,
        images,
        encoder,
        preprocessor,
        threads=threads,
        progress=lambda what, done, total: telemetry.progress(f"checking {what}", done, total),
        workers=workers,
    )
    checked.stop_above(job.train.max_bad_rows)  # before it is kept: its reader will mend the rows and start again
    if not preprocessor.tiles:
        checked.sizes = {}  # only AnyRes lays rows out by them
    if workers.rank == 0:
        row_verdicts.keep(job.checkpoints_uri, key, file, checked)
    return checked


def _problem(error: RowError) -> Problem:
    return Problem(file=error.file, row=error.row, field=error.field, problem=error.problem, message=str(error))
