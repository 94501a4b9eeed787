"""The models that are compared: the trained one, the same one made blind, and the stage-1 model.

The blind one shows what can be guessed from the questions alone; the stage-1 model (base language model, trained
projector) shows what instruction tuning added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llava import storage
from llava.config import Recipe
from llava.evaluation.engines.base import Engine
from llava.evaluation.engines.endpoint import Endpoint
from llava.evaluation.engines.own import OwnEngine, mean_colour
from llava.evaluation.identity import identity_of
from llava.evaluation.predictions import fingerprint
from llava.manifest import read_manifest
from llava.model.answering import Dtype, load_processor, placement
from llava.validation import validate


@dataclass(frozen=True)
class Contender:
    """A model that answers.

    Attributes:
        name: names its predictions and its metrics.
        title: how a report calls it.
        uri: where it was loaded from.
        identity: hash of what it is, weights included.
        engine: who computes its answers.
        blind: its images are replaced by the mean colour.
    """

    name: str
    title: str
    uri: str
    identity: str
    engine: Engine
    blind: bool = False


@dataclass(frozen=True)
class Lineup:
    """Which contenders there are, and how they are run; small and picklable, so that every rank can have it.

    Attributes:
        model: URI of the trained model; with an endpoint, what that serves.
        projector: URI of stage 1's projector, or None.
        blank: whether the blind one is asked.
        batch_size: of our own generator.
        dtype: of our own generator.
        endpoint: base URL; empty: our own generator.
        endpoint_model: as the endpoint names it.
        concurrency: requests in flight at the endpoint.
    """

    model: str
    projector: str | None = None
    blank: bool = True
    batch_size: int = 64
    dtype: Dtype = "auto"
    endpoint: str = ""
    endpoint_model: str = ""
    concurrency: int = 32


def contenders(lineup: Lineup, rank: int = 0) -> Iterator[Contender]:
    """Each contender, loaded when its turn comes; the model under test is loaded once for itself and the blind one.

    Args:
        lineup: who.
        rank: number of this process, hence of its GPU.

    Raises:
        SettingsError: no LLaVA there, no processor with a chat template, or the projector's base models cannot be read.
        StorageError: there is no projector.
    """
    from transformers.utils import logging

    from llava.model.sources import resolve

    logging.disable_progress_bar()  # the stage shows its own line
    place = resolve(lineup.model, "model")  # once: a remote model is fetched by it
    processor = load_processor(place, lineup.model)
    identity = identity_of(place, "model")
    engine = _engine(lineup, place, processor, rank)
    yield Contender("finetuned", "fine-tuned", lineup.model, identity, engine)
    if lineup.blank:
        yield Contender("blank", "image blanked", lineup.model, f"{identity}-blank", engine, blind=True)
    if lineup.projector:
        del engine  # the next one needs its memory
        yield _stage1(lineup, lineup.projector, processor.chat_template, rank)


def _engine(lineup: Lineup, place: str, processor: Any, rank: int) -> Engine:
    if lineup.endpoint:
        return Endpoint(
            lineup.endpoint,
            lineup.endpoint_model,
            concurrency=lineup.concurrency,
            blank_colour=mean_colour(processor),
        )
    from llava.model.saving import load_model

    device, dtype = placement(lineup.dtype, rank)
    return OwnEngine(load_model(place, dtype=dtype, device=device), processor, lineup.batch_size)


def _stage1(lineup: Lineup, projector_uri: str, chat_template: str, rank: int) -> Contender:
    """The base language model with the trained projector, asked by the fine-tuned model's template."""
    from llava.model.build import build_model, build_processor
    from llava.model.saving import load_projector
    from llava.model.sources import resolve

    manifest = read_manifest(projector_uri)
    recipe = validate(Recipe, manifest.recipe, storage.join(projector_uri, "manifest.json"))
    processor = build_processor(recipe.model, chat_template, recipe.pretrain.image_aspect_ratio)
    device, dtype = placement(lineup.dtype, rank)
    model = build_model(recipe.model, tokenizer=processor.tokenizer, dtype=dtype)
    load_projector(model, projector_uri)
    identity = fingerprint(
        identity_of(str(storage.as_local(projector_uri)), "projector"),
        identity_of(resolve(recipe.model.language_model, "model.language_model"), "model.language_model"),
        identity_of(resolve(recipe.model.vision_tower, "model.vision_tower"), "model.vision_tower"),
        chat_template,
    )
    engine = OwnEngine(model.to(device), processor, lineup.batch_size)
    return Contender("stage1", "stage 1", projector_uri, identity, engine)
