"""What a node needs at 7B and 13B: host memory, scratch, files of the saved model; beside it the pods' defaults."""

from __future__ import annotations

import pytest

from llava.config import load_recipe
from llava.model import saving
from llava.pipelines.resources import NEEDS
from llava.planning import host as host_module
from llava.planning.host import host
from llava.planning.stage_plan import shape_of
from tests.scale.shapes import true_model

GIB = 2**30


@pytest.mark.parametrize("size", ["7b", "13b"])
def test_a_saved_model_goes_file_by_file(size: str) -> None:
    shards = saving._in_shards(saving._hub_tensors(true_model(size).model, None), saving.SHARD_BYTES)
    sizes = [sum(saving._bytes_of(piece) for piece in shard) for shard in shards]
    assert max(sizes) <= saving.SHARD_BYTES == host_module.FILE
    parameters = sum(parameter.numel() for parameter in true_model(size).model.parameters())
    assert sum(sizes) == 2 * parameters
    # Under ZeRO-3 one tensor at a time is whole: the embedding matrix is the largest.
    most = max(sum(source.numel() for source in piece.sources) for shard in shards for piece in shard)
    assert most * 2 <= 0.35 * GIB


@pytest.mark.parametrize("ranks", [1, 2, 8])
@pytest.mark.parametrize("recipe_name", ["llava-v1.5-7b", "llava-v1.5-13b"])
def test_weights_lie_on_a_node_once_however_many_ranks_it_has(recipe_name: str, ranks: int) -> None:
    recipe = load_recipe(recipe_name)
    shape = shape_of(recipe.model)
    weights = 2 * (shape.language_parameters + shape.tower_parameters + shape.projector_parameters)
    need = host(shape, "finetune", recipe.finetune, gpus=ranks, per_node=ranks)
    # Loading: a process and its largest tensor a rank (and what is offloaded); never the model once a rank.
    offloaded = (16 * shape.language_parameters if recipe.finetune.offload_optimizer else 0) * 1.02
    tensors = ranks * 2 * shape.vocabulary * shape.width
    assert need.loading <= (ranks + 1) * host_module.PROCESS + tensors + offloaded
    assert need.scratch <= weights + saving.SHARD_BYTES + GIB
    masters_and_moments = 12 * shape.language_parameters
    assert need.training <= masters_and_moments * 1.02 + (ranks + 1) * host_module.PROCESS + 16 * GIB + (
        16 * shape.language_parameters if recipe.finetune.offload_optimizer else 0
    )


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.parametrize("recipe_name", ["llava-v1.5-7b", "llava-v1.5-13b", "llava-v1.5-7b-lora"])
def test_the_pods_scratch_and_shared_memory_hold_what_is_needed(recipe_name: str, stage: str) -> None:
    recipe = load_recipe(recipe_name)
    train = recipe.pretrain if stage == "pretrain" else recipe.finetune
    need = host(shape_of(recipe.model), stage, train, gpus=8, per_node=8)  # type: ignore[arg-type]
    assert need.scratch <= int(NEEDS[stage].scratch.removesuffix("Gi")) * GIB
    assert need.shm <= int(NEEDS[stage].shm.removesuffix("Gi")) * GIB
    if stage == "pretrain" or train.lora is not None:
        one = host(shape_of(recipe.model), stage, train, gpus=1, per_node=1)  # type: ignore[arg-type]
        assert one.least_memory <= int(NEEDS[stage].memory.removesuffix("Gi")) * GIB  # the default: one accelerator
