"""DeepSpeed, behind the few calls the loop needs.

[Contract] Everything DeepSpeed-specific is here, in `fragments` and in `deepspeed_config`. One `step` is: `micro` for
each micro-batch, the last one told so, then `update`.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from llava.config import TrainRecipe
from llava.training import fragments as layout
from llava.training.deepspeed_config import make_config
from llava.training.fragments import Fragment
from llava.training.loss import SupervisedLoss
from llava.training.parameter_groups import parameter_groups


def import_deepspeed() -> Any:
    """Import DeepSpeed, quietly and without compiling anything.

    On CPU every process group would first build a shared-memory extension (over a minute, and a crash without a
    compiler); gloo does that work instead. The module is reached through `sys.modules` because `deepspeed.comm` hides
    the submodule `torch` behind the library of that name.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    deepspeed = importlib.import_module("deepspeed")
    if not torch.cuda.is_available():
        sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    return deepspeed


def device_of_this_rank() -> torch.device:
    """The GPU of this process's local rank, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


class Engine:
    """A model under training on one rank.

    Args:
        model: on this rank's device, trainable parameters marked by `requires_grad`.
        recipe: the stage's section.
        world_size: ranks in all; torch.distributed must be initialised.
    """

    def __init__(self, model: nn.Module, recipe: TrainRecipe, world_size: int) -> None:
        deepspeed = import_deepspeed()
        self.world_size = world_size
        self.config = make_config(recipe, world_size)
        self.zero_stage: int = self.config["zero_optimization"]["stage"]
        self.model = model
        groups = parameter_groups(model, recipe)
        self._names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.trained_names = list(self._names.values())
        on_gpu = next(model.parameters()).is_cuda and not recipe.offload_optimizer
        optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.eps, fused=on_gpu or None
        )
        with _quiet_stdout():
            self._engine, *_ = deepspeed.initialize(
                model=SupervisedLoss(model), optimizer=optimizer, config=self.config
            )
        self._gathered = deepspeed.zero.GatheredParameters

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        return torch.device(self._engine.device)

    def micro(self, batch: Any, divisor: int, *, last: bool) -> torch.Tensor:
        """Forward and backward of one micro-batch; its share of the step's loss, on the device, detached."""
        self._engine.set_gradient_accumulation_boundary(last)
        loss: torch.Tensor = self._engine(batch, float(divisor))
        # DeepSpeed averages gradients over ranks; the objective is a sum, already divided by the step's tokens.
        self._engine.backward(loss * self.world_size, scale_wrt_gas=False)
        self._count_micro_step(last)
        return loss.detach()

    def update(self, lr_factor: float) -> None:
        """Apply the accumulated gradients at `lr_factor` times each group's peak learning rate."""
        self._norm = None
        self.set_learning_rate(lr_factor)
        if self.zero_stage == 0:
            self._norm = _norm(
                [p.grad for group in self._engine.optimizer.param_groups for p in group["params"] if p.grad is not None]
            )
        self._engine.step()
        if self._norm is None:
            self._norm = self._engine.get_global_grad_norm()

    def set_learning_rate(self, lr_factor: float) -> None:
        """Set every group to `lr_factor` times its peak."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * lr_factor

    def gradient_norm(self) -> torch.Tensor | float | None:
        """L2 norm of the last step's gradients over all ranks, before clipping; may still be on the device."""
        return self._norm

    @torch.no_grad()
    def evaluate(self, batch: Any, divisor: int) -> torch.Tensor:
        """Loss share without gradients; collective under ZeRO-3."""
        loss: torch.Tensor = self._engine.module(batch, float(divisor))
        return loss

    def train(self, mode: bool = True) -> None:
        """Switch dropout on or off."""
        self._engine.module.train(mode)

    def fragments(self) -> list[Fragment]:
        """This rank's slices of master weights and moments."""
        return layout.fragments(self._engine, self._names)

    def restored(self, adam_step: int) -> None:
        """Call after writing into `fragments`: makes the model's weights follow and sets Adam's step count."""
        layout.set_adam_step(self._engine, adam_step)
        layout.publish(self._engine)

    @contextlib.contextmanager
    def whole(self, parameters: Sequence[torch.Tensor]) -> Iterator[None]:
        """These parameters whole on every rank (gathered under ZeRO-3); collective, read only."""
        with self._gathered([one for one in parameters if hasattr(one, "ds_id")], enabled=self.zero_stage == 3):
            yield

    def _count_micro_step(self, last: bool) -> None:
        # engine.step() advances this counter; between boundaries we do not call it, since it would only do that.
        if not last:
            self._engine.micro_steps += 1

    def close(self) -> None:
        """Free hooks and process-wide state of the engine."""
        self._engine.destroy()


def _norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
    """DeepSpeed prints to stdout while it starts; a stage's stdout belongs to its caller."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
