"""The models that are compared: the trained one, the same one made blind, and the stage-1 model.

The blind one shows what can be guessed from the questions alone; the stage-1 model (base language model, trained
projector) shows what instruction tuning added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llava import storage
from llava.config import Recipe, validate
from llava.evaluation.identity import identity_of
from llava.evaluation.predictions import fingerprint
from llava.manifest import read_manifest


@dataclass(frozen=True)
class Contender:
    """A model that answers.

    Attributes:
        name: names its predictions and its metrics.
        title: how a report calls it.
        identity: hash of what it is, weights included.
        blind: its images are replaced by the mean colour.
    """

    name: str
    title: str
    model: Any
    processor: Any
    identity: str
    blind: bool = False


def load_finetuned(uri: str) -> Contender:
    """The model under test, on the GPU in half precision where there is one.

    Raises:
        SettingsError: no LLaVA there, or no processor with a chat template.
    """
    from transformers import AutoProcessor
    from transformers.utils import logging

    from llava.errors import SettingsError
    from llava.model.saving import load_model
    from llava.model.sources import resolve

    logging.disable_progress_bar()  # the stage shows its own line
    device, dtype = placement()
    place = resolve(uri, "model")  # once: a remote model is fetched by it
    try:
        processor = AutoProcessor.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise SettingsError(f"model: {uri}: its processor cannot be read: {error}") from error
    if not getattr(processor, "chat_template", None):
        raise SettingsError(f"model: {uri}: its processor has no chat template, so nobody knows how it is to be asked")
    model = load_model(place, dtype=dtype, device=device)
    return Contender("finetuned", "fine-tuned", model, processor, identity_of(place, "model"))


def blinded(contender: Contender) -> Contender:
    """The same model, shown images of the mean colour."""
    return Contender(
        "blank", "image blanked", contender.model, contender.processor, f"{contender.identity}-blank", blind=True
    )


def load_stage1(projector_uri: str, chat_template: str) -> Contender:
    """The base language model with the trained projector, asked by the fine-tuned model's template.

    Raises:
        SettingsError: the projector's manifest is no stage-1 manifest, or its base models cannot be read.
        StorageError: there is no projector.
    """
    from llava.model.build import build_model, build_processor
    from llava.model.saving import load_projector
    from llava.model.sources import resolve

    manifest = read_manifest(projector_uri)
    recipe = validate(Recipe, manifest.recipe, storage.join(projector_uri, "manifest.json"))
    processor = build_processor(recipe.model, chat_template, recipe.pretrain.image_aspect_ratio)
    device, dtype = placement()
    model = build_model(recipe.model, tokenizer=processor.tokenizer, dtype=dtype)
    load_projector(model, projector_uri)
    identity = fingerprint(
        identity_of(str(storage.as_local(projector_uri)), "projector"),
        identity_of(resolve(recipe.model.language_model, "model.language_model"), "model.language_model"),
        identity_of(resolve(recipe.model.vision_tower, "model.vision_tower"), "model.vision_tower"),
        chat_template,
    )
    return Contender("stage1", "stage 1", model.to(device), processor, identity)


def placement() -> tuple[str, Any]:
    """Device and type to answer on: bfloat16 on a GPU, float32 on a CPU."""
    import torch

    return ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)


def mean_colour(processor: Any) -> tuple[int, int, int]:
    """The colour that is zero after normalisation, as the tower sees it."""
    red, green, blue = (round(255 * float(value)) for value in processor.image_processor.image_mean)
    return red, green, blue
