"""Which parameters a stage moves."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from llava.errors import SettingsError
from llava.model import projector, towers

Part = Literal["projector", "language_model", "vision_tower"]


def part_of(name: str) -> Part:
    """The part of the model a parameter belongs to, by its name in `model.named_parameters()`."""
    if "vision_tower." in name:
        return "vision_tower"
    if "multi_modal_projector." in name or name.endswith("image_newline"):
        return "projector"
    return "language_model"


def set_trainable(model: Any, stage: Literal["pretrain", "finetune"], *, train_tower: bool = False) -> None:
    """Freeze everything but what the stage moves: pretrain the projector; finetune projector and language model.

    With adapters in the language model (`lora.add_lora`), finetune moves the adapters and not the weights under them.
    The tower moves only with `train_tower` (a recipe that gives it a learning rate); its layers behind
    `vision_feature_layer` never do, since no gradient reaches them.

    Raises:
        SettingsError: nothing would be left to train (stage 1 of an identity projector).
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in projector.trained_parameters(
        model.model.multi_modal_projector, projector.kind_of(model.model.multi_modal_projector)
    ):
        parameter.requires_grad_(True)
    if hasattr(model.model, "image_newline"):
        model.model.image_newline.requires_grad_(True)
    if stage == "finetune":
        has_adapters = any("lora_" in name for name, _ in model.named_parameters())
        for name, parameter in model.named_parameters():
            if part_of(name) == "language_model" and (not has_adapters or "lora_" in name):
                parameter.requires_grad_(True)
        if train_tower:
            for parameter in _used_tower_parameters(model):
                parameter.requires_grad_(True)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise SettingsError(
            "model.projector: identity has nothing to train in stage 1; "
            "go straight to finetune, or choose linear or mlp2x_gelu"
        )


def _used_tower_parameters(model: Any) -> list[nn.Parameter]:
    tower = model.model.vision_tower
    layers = towers.layers_of(tower)
    used = towers.used_layers(len(layers), model.config.vision_feature_layer)
    modules = [*towers.modules_before(tower), *layers[:used]]
    named = [item for module in modules for item in module.named_parameters()]
    return [parameter for name, parameter in named if name != "mask_token"]  # DINOv2's, of its own training only
