"""A trained model and its processor, ready to be asked: which device, which type, which chat template."""

from __future__ import annotations

from typing import Any, Literal

from llava.errors import SettingsError

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def load_answering(uri: str, device: str = "auto", dtype: Dtype = "auto") -> tuple[Any, Any]:
    """A trained model and its processor, on the GPU in half precision where there is one.

    Args:
        uri: hub directory, s3:// URI or hub id.
        device: as torch names it; `auto`: the first GPU, else the CPU.
        dtype: `auto`: bfloat16 on a GPU, float32 on a CPU.

    Raises:
        SettingsError: no LLaVA there, or no processor with a chat template.
    """
    from transformers.utils import logging

    from llava.model.saving import load_model
    from llava.model.sources import resolve

    logging.disable_progress_bar()
    place = resolve(uri, "model")
    processor = load_processor(place, uri)
    found, kind = placement(dtype, device=device)
    return load_model(place, dtype=kind, device=found), processor


def placement(dtype: Dtype, rank: int = 0, device: str = "auto") -> tuple[str, Any]:
    """Device and type to answer on; `auto`: this rank's GPU and bfloat16, or the CPU and float32."""
    import torch

    if device == "auto":
        device = f"cuda:{rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    chosen = dtype if dtype != "auto" else "float32" if device == "cpu" else "bfloat16"
    return device, getattr(torch, chosen)


def load_processor(place: str, uri: str) -> Any:
    """The processor saved at a local place or hub id; `uri` is how its user named it.

    Raises:
        SettingsError: it cannot be read, or has no chat template.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise SettingsError(f"model: {uri}: its processor cannot be read: {error}") from error
    if not getattr(processor, "chat_template", None):
        raise SettingsError(f"model: {uri}: its processor has no chat template, so nobody knows how it is to be asked")
    return processor
