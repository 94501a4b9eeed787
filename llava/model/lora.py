"""Low-rank adapters (Hu et al. 2021) by peft, on the language model and nowhere else.

peft matches modules by the end of their names, and the tower's attention has `q_proj` too: the adapters are therefore
injected into the language model's own module, never into the joined one. Checkpoints are always merged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Merged:
    """One tensor of the merged model, made when it is asked for, so that nobody has to hold them all.

    Attributes:
        sources: what it is made of; they have to be whole (ZeRO-3) while `make` runs.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    sources: tuple[torch.Tensor, ...]
    make: Callable[[], torch.Tensor]


def merged_tensors(model: Any) -> list[Merged]:
    """The tensors the merged model would have, by its parameter names, leaving the model as it is: with or without
    adapters, 4-bit or not, whole or cut over ranks."""
    state: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
    four_bit = {f"{name}.weight": module for name, module in _four_bit_layers(model, state)}
    adapted = dict(_lora_layers(model))
    found = []
    for key, tensor in state.items():
        owner, _, last = key.rpartition(".")
        if any(key.startswith(f"{weight}.") for weight in _weights_above(key, four_bit)):
            continue  # scales and code books, folded in with their weight
        layer = adapted.get(owner.removesuffix(".base_layer")) if owner.endswith(".base_layer") else None
        if layer is None and f".{ADAPTER}." in key and ".lora_" in key:
            continue  # folded in below
        name = f"{owner.removesuffix('.base_layer')}.{last}" if layer is not None else key
        base = four_bit.get(key)
        shape = tuple(getattr(tensor, "ds_shape", tensor.shape))
        dtype = tensor.dtype
        if base is not None:
            shape, dtype = (base.out_features, base.in_features), base.weight.quant_state.dtype
        if layer is not None and last == "weight":
            factors = tuple(getattr(layer, part)[ADAPTER].weight for part in ("lora_A", "lora_B"))
            make = functools.partial(_make_merged, layer, base, tensor, *factors)
            found.append(Merged(name, shape, dtype, (tensor, *factors), make))
        else:
            found.append(Merged(name, shape, dtype, (tensor,), functools.partial(_make_plain, base, tensor)))
    return found


def merged_state_dict(model: Any) -> dict[str, torch.Tensor]:
    """All of `merged_tensors` at once."""
    return {tensor.name: tensor.make() for tensor in merged_tensors(model)}


def _weights_above(key: str, weights: Mapping[str, Any]) -> list[str]:
    at = key.rfind(".weight.")
    return [key[: at + len(".weight")]] if at >= 0 and key[: at + len(".weight")] in weights else []


def _make_plain(base: Any, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach() if base is None else _dequantised(base, tensor.detach())


def _make_merged(layer: Any, base: Any, tensor: torch.Tensor, a_RD: torch.Tensor, b_OR: torch.Tensor) -> torch.Tensor:
    return _merged(layer, _make_plain(base, tensor), a_RD, b_OR)


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
