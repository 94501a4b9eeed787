"""From a data file to a rank's batches, over the tiny world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from llava import storage
from llava.config import TrainRecipe, load_recipe
from llava.data.batch_plan import BatchPlan
from llava.data.batches import BatchLoader
from llava.data.dataset import LazySupervisedDataset
from llava.data.images import ImageSource
from llava.data.labels import RowEncoder
from llava.data.preprocess import Preprocessor
from llava.data.records import read_records
from llava.data.shards import pack_images
from llava.data.templates import get_template


def make_dataset(
    world: Any, recipe_path: Path, stage: str = "finetune", images_uri: str = ""
) -> tuple[LazySupervisedDataset, TrainRecipe]:
    from llava.model.processor import build_processor

    recipe = load_recipe(str(recipe_path))
    train: TrainRecipe = getattr(recipe, stage)
    from transformers import AutoTokenizer

    template = get_template(train.template, AutoTokenizer.from_pretrained(recipe.model.language_model))
    processor = build_processor(recipe.model, template, train.image_aspect_ratio)
    file = read_records(str(world.pretrain_json if stage == "pretrain" else world.instruct_json))
    assert not file.problems
    encoder = RowEncoder(template, processor.tokenizer, max_length=train.max_length)
    return LazySupervisedDataset(
        file.records,
        encoder,
        ImageSource(images_uri or world.images_uri),
        Preprocessor.from_processor(processor),
        file=file.uri,
    ), train


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_row_once_an_epoch_and_the_divisor_is_the_sum(
    tiny_world: Any, tiny_recipe: Any, packing: bool, workers: int
) -> None:
    dataset, train = make_dataset(tiny_world, tiny_recipe)
    train = train.model_copy(update={"packing": packing, "max_steps": None, "group_by_modality_length": True})
    seen: list[int] = []
    for world_size in (1, 2):
        plan = BatchPlan(dataset.lengths, dataset.supervised, dataset.image_counts, train, world_size)
        ranks = [list(BatchLoader(dataset, plan, rank, workers=workers)) for rank in range(world_size)]
        for steps in zip(*ranks, strict=True):
            assert len({len(step.micro_batches) for step in steps}) == 1
            batches = [batch for step in steps for batch in step.micro_batches]
            assert sum(len(batch.target_ids_K) for batch in batches) == steps[0].supervised
            for batch in batches:
                assert torch.isfinite(batch.pixel_values_ICHW).all()
                images = int((batch.input_ids_BT == dataset.encoder.image_token_id).sum())
                assert images == 16 * (len(batch.pixel_values_ICHW) if batch.has_images else 0)
            seen += [row for batch in batches for row in batch.rows]
    assert sorted(seen) == sorted([*range(len(dataset))] * 2)


@pytest.mark.slow
@pytest.mark.parametrize("shards", [False, True])
def test_images_in_a_store_give_the_same_batches(
    tiny_world: Any, tiny_recipe: Path, moto_s3: Any, shards: bool
) -> None:
    local, train = make_dataset(tiny_world, tiny_recipe)
    uri = f"{moto_s3.uri}/images"
    refs = {ref for record in local.records for ref in record.images}
    if shards:
        pack_images(sorted(refs), local.images.read, uri, shard_bytes=20_000)
    else:
        for ref in refs:
            storage.write_bytes(f"{uri}/{ref}", local.images.read(ref))
    remote, _ = make_dataset(tiny_world, tiny_recipe, images_uri=uri)
    plan = BatchPlan(local.lengths, local.supervised, local.image_counts, train)
    pairs = zip(BatchLoader(local, plan, workers=0), BatchLoader(remote, plan, workers=4), strict=True)
    for here, there in pairs:
        for a, b in zip(here.micro_batches, there.micro_batches, strict=True):
            assert torch.equal(a.pixel_values_ICHW, b.pixel_values_ICHW)
            assert torch.equal(a.input_ids_BT, b.input_ids_BT)
