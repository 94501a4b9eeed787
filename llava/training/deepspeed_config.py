"""A recipe as a DeepSpeed configuration; it is printed when a run starts and kept in the manifest."""

from __future__ import annotations

from typing import Any

from llava.config import TrainRecipe


def make_config(recipe: TrainRecipe, world_size: int) -> dict[str, Any]:
    """The configuration given to `deepspeed.initialize`.

    Optimiser and schedule are not in it: the loop hands over a torch AdamW and sets the learning rates itself. The
    batch sizes are nominal, because our micro-batches vary in rows and number from step to step and the loop declares
    each step's end; DeepSpeed only needs them to be consistent.
    """
    zero: dict[str, Any] = {"stage": recipe.effective_zero_stage}
    # Reducing beside the backward pass moves no sum to another place: losses and weights are those without it.
    if zero["stage"] in (1, 2):
        zero |= {"overlap_comm": True, "contiguous_gradients": True, "reduce_scatter": True}
    if zero["stage"] == 3:
        # Small parameters stay gathered; the prefetch bucket follows DeepSpeed's own defaults.
        zero |= {
            "overlap_comm": True,
            "contiguous_gradients": True,
            "stage3_gather_16bit_weights_on_model_save": False,
        }
    if recipe.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if recipe.offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    config: dict[str, Any] = {
        "train_batch_size": world_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": recipe.max_grad_norm or 0.0,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31 - 1,
        "wall_clock_breakdown": False,
    }
    if recipe.precision == "bf16":
        # Each gradient joins its fp32 sum as soon as it is there; else all of them wait in bf16 for the backward's end.
        config["bf16"] = {"enabled": True, "immediate_grad_update": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config
