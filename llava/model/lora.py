"""Low-rank adapters (Hu et al. 2021) by peft, on the language model and nowhere else.

peft matches modules by the end of their names, and the tower's attention has `q_proj` too: the adapters are therefore
injected into the language model's own module, never into the joined one. Checkpoints are always merged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from llava.config import LoraRecipe
from llava.errors import SettingsError

ADAPTER = "default"


def add_lora(model: Any, recipe: LoraRecipe, *, seed: int = 0) -> None:
    """Inject adapters into `model.model.language_model`, in place. Call before `freezing.set_trainable`.

    Raises:
        SettingsError: a target module does not exist in this language model.
    """
    from peft import LoraConfig, inject_adapter_in_model

    language_model = model.model.language_model
    ends = {name.rsplit(".", 1)[-1] for name, child in language_model.named_modules() if isinstance(child, nn.Linear)}
    unknown = [name for name in recipe.target_modules if name.rsplit(".", 1)[-1] not in ends]
    if unknown:
        raise SettingsError(
            f"lora.target_modules: {', '.join(unknown)} not in this language model; it has {', '.join(sorted(ends))}"
        )
    config = LoraConfig(
        r=recipe.r,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=recipe.target_modules,
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, language_model, adapter_name=ADAPTER)


def merge(model: Any) -> None:
    """Add the adapters into the weights they adapt and take them out, in place; 4-bit weights become whole again.

    Without adapters nothing happens.
    """
    for name, layer in list(_lora_layers(model)):
        base = layer.get_base_layer()
        base.state_dict()  # on CPU bitsandbytes repacks a weight once it has been used in eval mode; this undoes it
        whole = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        factors = (getattr(layer, part)[ADAPTER].weight for part in ("lora_A", "lora_B"))
        merged = _merged(layer, _dequantised(base, base.weight.data), *factors)
        whole.weight = nn.Parameter(merged, requires_grad=False)
        whole.bias = base.bias
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, whole.train(layer.training))


def merged_state_dict(model: Any, state_dict: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """The state the merged model would have, by its parameter names, leaving the model as it is.

    Args:
        model: with or without adapters, 4-bit or not.
        state_dict: whole tensors where the model holds only parts of them (ZeRO-3); default: the model's own.
    """
    state = dict(state_dict if state_dict is not None else model.state_dict())
    for name, module in _four_bit_layers(model, state):
        state[f"{name}.weight"] = _dequantised(module, state[f"{name}.weight"])
        for key in [key for key in state if key.startswith(f"{name}.weight.")]:
            del state[key]  # scales and code books, folded in above
    for name, layer in _lora_layers(model):
        factors = (state.pop(f"{name}.{part}.{ADAPTER}.weight") for part in ("lora_A", "lora_B"))
        state[f"{name}.weight"] = _merged(layer, state.pop(f"{name}.base_layer.weight"), *factors)
        bias = state.pop(f"{name}.base_layer.bias", None)
        if bias is not None:
            state[f"{name}.bias"] = bias
    return state


def _merged(layer: Any, base_OD: torch.Tensor, a_RD: torch.Tensor, b_OR: torch.Tensor) -> torch.Tensor:
    delta_OD: torch.Tensor = (b_OR.detach().float() @ a_RD.detach().float()) * layer.scaling[ADAPTER]
    merged_OD = base_OD.detach().float() + delta_OD.to(base_OD.device)
    return merged_OD.to(base_OD.dtype)


def _lora_layers(model: Any) -> Iterator[tuple[str, Any]]:
    # peft takes seconds to import; without adapters in the model it is not needed.
    names = [name[: -len(".lora_A")] for name, _ in model.named_modules() if name.endswith(".lora_A")]
    return ((name, model.get_submodule(name)) for name in names)


def _four_bit_layers(model: Any, state: Mapping[str, torch.Tensor]) -> list[tuple[str, Any]]:
    # peft's layers show their base's weight as their own: only who has it in the state is the layer itself.
    return [
        (name, module)
        for name, module in model.named_modules()
        if f"{name}.weight" in state and hasattr(module.weight, "quant_state")
    ]


def _dequantised(base: Any, stored: torch.Tensor) -> torch.Tensor:
    state = getattr(base.weight, "quant_state", None)
    if state is None:
        return stored
    from bitsandbytes.functional import dequantize_4bit  # type: ignore[import-not-found,unused-ignore]

    whole: torch.Tensor = dequantize_4bit(stored, state)
    return whole
