"""What would make a stage fit that does not: only ways that the memory model confirms, the cheapest in time first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from llava.config import LoraRecipe, TrainRecipe
from llava.planning.flops import Stage

MOST = 6
MORE_GPUS = (2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Remedy:
    """One way out.

    Attributes:
        fields: recipe fields to set, or `gpus`.
        text: the same for people.
        here: on the GPUs asked for.
    """

    fields: dict[str, Any]
    text: str
    here: bool = True


def remedies(
    train: TrainRecipe, stage: Stage, gpus: int, largest: Callable[[TrainRecipe, int], int], *, smallest: int
) -> list[Remedy]:
    """The ways that work, cheapest first: smaller packs, ZeRO, recomputing, adapters, 4 bits, offloading, more GPUs.

    Args:
        train: the stage's section, which does not fit.
        stage: pretrain or finetune.
        gpus: how many there are.
        largest: tokens of the largest micro-batch that fits, for a recipe on a number of GPUs.
        smallest: tokens that a micro-batch must hold: the longest row.
    """
    found: list[Remedy] = []
    wanted = train.pack_tokens if train.packing else train.micro_batch_size * train.max_length
    for fields in _candidates(train, stage, gpus):
        changed = _changed(train, fields)
        room = largest(changed, gpus)
        if room < smallest:
            continue
        size = _smaller(changed, room, wanted)
        found.append(Remedy({**fields, **size}, _text({**fields, **size})))
        if len(found) == MOST:
            return found
    for more in MORE_GPUS:
        if more <= gpus:
            continue
        for fields in ({}, *({"zero_stage": zero} for zero in (2, 3) if zero > train.effective_zero_stage)):
            if largest(_changed(train, fields), more) >= wanted:
                text = " and ".join(part for part in (f"{more} GPUs", _text(fields)) if part)
                found.append(Remedy({"gpus": more, **fields}, text, here=False))
                return found
    return found


def _candidates(train: TrainRecipe, stage: Stage, gpus: int) -> Iterator[dict[str, Any]]:
    every = train.activation_checkpoint_every_n_layers
    redo = [{"activation_checkpoint_every_n_layers": n} for n in (2, 1) if every == 0 or n < every]
    yield {}
    sharded = [{"zero_stage": zero} for zero in (2, 3) if gpus > 1 and zero > train.effective_zero_stage]
    if train.lora is not None and train.lora.quantize_4bit:
        sharded = [fields for fields in sharded if fields["zero_stage"] < 3]
    yield from sharded
    yield from redo
    if sharded and redo:
        yield {**sharded[-1], **redo[-1]}
    last = redo[-1] if redo else {}
    if stage == "finetune" and train.vision_tower_learning_rate is None:
        adapters = {"lora": LoraRecipe(), "zero_stage": 1}
        if train.lora is None:
            yield adapters
            yield {**adapters, **last}
        if train.lora is None or not train.lora.quantize_4bit:
            base = train.lora or LoraRecipe()
            yield {**adapters, **last, "lora": base.model_copy(update={"quantize_4bit": True})}
    if train.precision == "bf16":
        yield {**last, "zero_stage": max(2, train.zero_stage), "offload_optimizer": True}
        yield {**last, "zero_stage": 3, "offload_optimizer": True, "offload_parameters": True}


def _changed(train: TrainRecipe, fields: dict[str, Any]) -> TrainRecipe:
    return train.model_copy(update=fields)


def _smaller(train: TrainRecipe, room: int, wanted: int) -> dict[str, Any]:
    if room >= wanted:
        return {}
    if train.packing:
        return {"pack_tokens": room}
    return {"micro_batch_size": max(1, room // train.max_length)}


def _text(fields: dict[str, Any]) -> str:
    parts = []
    for name, value in fields.items():
        if name == "lora":
            parts.append(f"lora (r {value.r}{', quantize_4bit true' if value.quantize_4bit else ''})")
        else:
            parts.append(f"{name} {str(value).lower()}")
    return ", ".join(parts)
