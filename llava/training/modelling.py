"""The model a job trains: built, adapted, its trainable parts marked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from llava.config import TrainRecipe
from llava.training.deepspeed_config import make_config
from llava.training.engine import import_deepspeed
from llava.training.job import Job


def build_processor_for(job: Job) -> Any:
    """The processor the rows are made with and the model is saved with.

    Raises:
        SettingsError: the recipe's models cannot be read, or the template does not fit the tokenizer.
    """
    from llava.data.templates import get_template
    from llava.model.processor import build_processor
    from llava.model.special_tokens import load_tokenizer

    recipe = job.train
    template = get_template(recipe.template).bound(load_tokenizer(job.recipe.model.language_model))
    return build_processor(job.recipe.model, template, recipe.image_aspect_ratio)


def build_model_for(job: Job, processor: Any, device: torch.device) -> Any:
    """The model on `device`, as the job's stage wants it.

    Raises:
        SettingsError: the parts do not fit together, or the projector is of another kind.
        StorageError: no projector where one should be.
    """
    from llava.model import attention, kernels, lora, saving
    from llava.model.build import build_model
    from llava.model.checkpointing import checkpoint_every
    from llava.model.freezing import set_trainable

    recipe = job.train
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    lora_recipe = recipe.lora if job.stage == "finetune" else None
    quantized = lora_recipe is not None and lora_recipe.quantize_4bit
    cut = recipe.effective_zero_stage == 3 and not quantized
    model: Any = build_model(
        job.recipe.model,
        tokenizer=processor.tokenizer,
        dtype=dtype,
        device=device,
        quantize_4bit=quantized,
        seed=recipe.seed,
        loading=cut_over_ranks(recipe, dist.get_world_size()) if cut else None,
    )
    attention.install(model)
    if job.projector_uri:
        saving.load_projector(model, job.projector_uri)
    if lora_recipe is not None:
        lora.add_lora(model, lora_recipe, seed=recipe.seed)
    checkpoint_every(model, recipe.activation_checkpoint_every_n_layers)
    set_trainable(model, job.stage, train_tower=recipe.vision_tower_learning_rate is not None)
    model = model.to(device)
    if recipe.kernels == "liger":
        kernels.use_liger(model)
    if recipe.compile:
        # Layer by layer: one small graph compiled once and used L times, whatever the batch around it.
        for layer in model.model.language_model.layers:
            layer.compile()
    return model


@contextmanager
def cut_over_ranks(recipe: TrainRecipe, world_size: int) -> Iterator[None]:
    """Models read in here are cut over the ranks tensor by tensor as ZeRO-3 will hold them; collective.

    One rank reads (out of mapped files) and hands round; none ever holds more than its part and one tensor, so that a
    model larger than a GPU, and larger than a node's memory shared among its ranks, can be loaded.
    """
    deepspeed = import_deepspeed()
    # DeepSpeed counts ranks by its own view of the process group, which the engine would only make later.
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    held = HfDeepSpeedConfig(make_config(recipe, world_size))  # transformers only keeps a weak reference
    try:
        yield
    finally:
        del held
        unset_hf_deepspeed_config()
