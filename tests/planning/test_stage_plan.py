"""What a stage costs by arithmetic: sums that add up, remedies that are some, any GPU."""

from __future__ import annotations

from typing import Any

import pytest

from llava.config import load_recipe
from llava.errors import SettingsError
from llava.planning.corpora import CORPORA, Corpus, default_corpus
from llava.planning.gpus import GPUS, gpu_named
from llava.planning.stage_plan import StagePlan, check_arguments, plan_stage, shape_of, visual_tokens_and_tiles


def plan(
    name: str = "llava-v1.5-7b",
    stage: Any = "finetune",
    overrides: Any = None,
    corpus: Corpus | None = None,
    **more: Any,
) -> StagePlan:
    recipe = load_recipe(name, overrides)
    options: dict[str, Any] = {"gpu": gpu_named("h200"), "gpus": 8, "mfu": 0.4, "price": 5.0, **more}
    return plan_stage(recipe, stage, shape_of(recipe.model), corpus or default_corpus(name, stage), **options)


def test_steps_flops_hours_and_cost_add_up() -> None:
    result = plan()
    assert result.steps == -(-665_298 // 128)
    assert result.flops.total == pytest.approx(665_298 * 32.1e12, rel=0.02)
    computing = result.hours - result.communication_hours
    assert computing == pytest.approx(result.flops.total / (8 * 989e12 * 0.4) / 3600)
    assert result.cost == pytest.approx(result.hours * 8 * 5)
    four, slow = plan(gpus=4), plan(mfu=0.2)
    assert four.hours - four.communication_hours == pytest.approx(2 * computing)
    assert slow.hours - slow.communication_hours == pytest.approx(2 * computing)
    assert plan(gpus=1).communication_hours == 0


def test_the_published_times_are_met_at_the_published_utilisation() -> None:
    """7B on 8 A100: stage 1 in 3.5 h at 29 % MFU; stage 2 in 10 h at 21-25 % (FACTS 5)."""
    full = {"pretrain.activation_checkpoint_every_n_layers": 1, "finetune.activation_checkpoint_every_n_layers": 1}
    a100 = gpu_named("a100")
    first = plan(stage="pretrain", gpu=a100, mfu=0.29)
    assert first.hours == pytest.approx(3.5, rel=0.05)
    second = plan(gpu=a100, mfu=0.23)
    assert second.hours == pytest.approx(10, rel=0.1)
    # Every layer recomputed but for its last product: a quarter more, not the third that the whole layer would be.
    assert plan(overrides=full, gpu=a100, mfu=0.23).hours == pytest.approx(second.hours * 1.25, rel=0.02)


def test_max_steps_limits_rows_and_epochs_multiply() -> None:
    few = plan(overrides={"finetune.max_steps": 10})
    assert few.steps == 10
    assert few.flops.total == pytest.approx(plan().flops.total * 1280 / 665_298)
    assert plan(overrides={"finetune.epochs": 2}).flops.total == pytest.approx(2 * plan().flops.total)


@pytest.mark.parametrize(
    ("gpu", "gpus", "name", "stage", "first"),
    [
        ("h100", 8, "llava-v1.5-7b", "finetune", None),
        ("h100", 1, "llava-v1.5-7b", "finetune", "lora (r 128), zero_stage 1"),
        ("a100-40g", 8, "llava-v1.5-7b", "finetune", "zero_stage 3"),
        ("rtx4090", 1, "llava-v1.5-7b", "pretrain", "activation_checkpoint_every_n_layers"),
        ("rtx4090", 1, "llava-v1.5-7b", "finetune", "quantize_4bit true"),
        ("rtx4090", 1, "llava-v1.5-13b", "pretrain", "offload_parameters true"),
    ],
)
def test_every_remedy_is_one(gpu: str, gpus: int, name: str, stage: Any, first: str | None) -> None:
    """What is named fits when it is done; where nothing is needed, nothing is named."""
    result = plan(name, stage, gpu=gpu_named(gpu), gpus=gpus)
    assert result.fits == (first is None) == (not result.remedies)
    if first is None:
        return
    assert any(first in remedy.text for remedy in result.remedies), [remedy.text for remedy in result.remedies]
    for remedy in result.remedies:
        fields = {f"{stage}.{key}": value for key, value in remedy.fields.items() if key != "gpus"}
        lora = remedy.fields.get("lora")
        if lora is not None:
            fields[f"{stage}.lora"] = lora.model_dump(mode="json")
        done = plan(name, stage, fields, gpu=gpu_named(gpu), gpus=remedy.fields.get("gpus", gpus))
        assert done.fits, remedy.text
        assert remedy.here == ("gpus" not in remedy.fields)
    (warning,) = [text for text in result.warnings if "does not fit" in text]
    assert all(remedy.text in warning for remedy in result.remedies)


def test_the_advice_that_did_not_work_is_no_longer_given() -> None:
    """7B whole on one H100: 108 GiB of states stay whatever is recomputed."""
    texts = [remedy.text for remedy in plan(gpu=gpu_named("h100"), gpus=1).remedies]
    assert "activation_checkpoint_every_n_layers 1" not in texts
    assert any("offload_optimizer true" in text for text in texts) and any("lora" in text for text in texts)


def test_packs_are_laid_out_as_training_does() -> None:
    """The AnyRes recipe with the unit mistaken for images was 30 to 38 % full; with tiles it is over 80."""
    for stage, before in (("pretrain", 12), ("finetune", 8)):
        old = plan("llava-v1.6-7b", stage, {f"{stage}.pack_images": before}, gpu=gpu_named("h100"))
        assert old.fill.share < 0.45 and old.fill.bound == "images"
        assert any("pack_images" in warning for warning in old.warnings)
        now = plan("llava-v1.6-7b", stage, gpu=gpu_named("h100"))
        assert now.fill.share > 0.7
        assert now.fill.micro_steps < 0.6 * old.fill.micro_steps
    result = plan()
    assert result.fill.micro_steps * 8 * result.micro_tokens >= 128 * 700


def test_communication_grows_with_the_zero_stage_and_slower_links() -> None:
    """ZeRO 3 gathers 13.5 GB twice a micro-step: through 100 Gbit/s shared by 8 GPUs that hides behind nothing."""
    hours = {
        zero: plan(overrides={"finetune.zero_stage": zero}, gpus=16, network=12.5e9).communication_hours
        for zero in (2, 3)
    }
    near = plan(overrides={"finetune.zero_stage": 3}, gpus=8).communication_hours
    assert hours[3] > hours[2] > 0
    assert near < hours[3]


def test_states_on_the_host_cost_time() -> None:
    """7B on one GPU: AdamW moves 28 bytes a parameter through the host's memory, 1.9 s a step at 100 GB/s."""
    near = plan(gpus=1, overrides={"finetune.zero_stage": 2})
    far = plan(gpus=1, overrides={"finetune.zero_stage": 2, "finetune.offload_optimizer": True})
    each = 3600 * (far.hours - near.hours) / far.steps
    assert each == pytest.approx(6.76e9 * (28 / 100e9 + 6 / 20e9), rel=0.02)


def test_a_node_s_needs() -> None:
    """A snapshot of the 7B is 12 B a trained parameter: 81 GB; on two nodes each has half."""
    one, two = plan(gpus=8).host, plan(gpus=16).host
    assert one.training > 12 * 6.7e9
    assert one.training - two.training == pytest.approx(6 * plan().trained_parameters, rel=0.2)
    assert one.scratch == pytest.approx(14.1e9 + 5 * 2**30, rel=0.02), (
        "the base model in bf16 and a file of the written"
    )
    assert plan("llava-v1.5-7b-lora").host.training < 64 * 2**30


def test_wasteful_recipes_are_told() -> None:
    assert any(
        "gathers all frozen weights" in text
        for text in plan(stage="pretrain", overrides={"pretrain.zero_stage": 3}).warnings
    )
    assert any("would idle" in text for text in plan(gpus=64).warnings)
    assert any("room for packs" in text for text in plan(overrides={"finetune.pack_tokens": 2048}).warnings)
    assert not plan().warnings


def test_padded_batches_are_planned_at_their_worst() -> None:
    padded = plan(overrides={"finetune.packing": False, "finetune.micro_batch_size": 4})
    assert padded.micro_tokens == 4 * 2048


def test_anyres_images_are_several_tiles() -> None:
    shape = shape_of(load_recipe("llava-v1.6-7b").model)
    tokens, tiles = visual_tokens_and_tiles(shape)
    assert tiles == 5
    assert tokens == 576 + 36 * 49
    assert plan("llava-v1.6-7b").flops.tower > 4.5 * 3 * plan().flops.tower  # and the tower is trained


def test_the_anyres_estimate_is_the_processors_count() -> None:
    """A 640 x 480 photograph, through the stock processor at full size."""
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
    from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

    recipe = load_recipe("llava-v1.6-7b").model
    processor = LlavaNextProcessor.__new__(LlavaNextProcessor)
    processor.image_processor = LlavaNextImageProcessorPil(
        image_grid_pinpoints=[list(size) for size in recipe.image_grid_pinpoints or ()]
    )
    processor.patch_size, processor.num_additional_image_tokens = 14, 0
    assert processor._get_number_of_features(480, 640, 336, 336) == visual_tokens_and_tiles(shape_of(recipe))[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gpu_named("h1000"), "gpu: found 'h1000'; expected one of rtx3090.*--gpu-memory"),
        (lambda: check_arguments(0, 0.4, 1), "gpus: found 0"),
        (lambda: check_arguments(1, 40, 1), "mfu: found 40; expected a share"),
        (lambda: check_arguments(1, 0.4, -1), "price: found -1"),
    ],
)
def test_bad_arguments(call: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("H100", "h100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-40GB", "a100-40g"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("rtx-5090", "rtx5090"),
    ],
)
def test_gpus_go_by_any_of_their_names(name: str, found: str) -> None:
    assert gpu_named(name).name == found


def test_a_gpu_of_no_table_is_planned_by_its_memory() -> None:
    unknown = gpu_named("Radeon 9", memory_gib=48)
    assert (unknown.memory, unknown.name) == (48 * 2**30, "Radeon 9")
    assert gpu_named("h100", memory_gib=60).memory == 60 * 2**30
    assert gpu_named("Radeon 9", memory_gib=48, peak_tflops=400).peak_bf16 == 4e14
    with pytest.raises(SettingsError, match="gpu-memory: found -1"):
        gpu_named("h100", memory_gib=-1)


def test_tables_are_sound() -> None:
    assert all(
        gpu.name == name and gpu.memory > 2**34 and gpu.peak_bf16 > 5e13 and gpu.link > 1e9 and gpu.price > 0
        for name, gpu in GPUS.items()
    )
    assert all(corpus.supervised <= corpus.text_tokens for corpus in CORPORA.values())
