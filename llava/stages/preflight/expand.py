"""Preflight of the expansion stage: recipe and kinds, teacher with model, price and key, annotations and images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from llava import extras, storage
from llava.errors import UserError
from llava.stages.expand_settings import checks_of, judge_of, teacher_settings
from llava.stages.preflight import places

if TYPE_CHECKING:
    from llava.stages.expand_settings import Settings


def faults(settings: Settings, inputs: Mapping[str, str], here: bool) -> Iterator[str]:
    """What is wrong; places and keys are looked at only where the stage runs on this machine."""
    from llava.expansion.gates.panel import Panel
    from llava.expansion.job import split_names
    from llava.expansion.opinions.conduct import check_judge_recipe
    from llava.expansion.recipe.kinds import BUILT_IN_KINDS, load_expansion_recipe
    from llava.expansion.run import check
    from llava.suggestions import meant

    teacher = teacher_settings(settings)
    recipe = settings.expansion_recipe
    try:
        # A folder of one's own may lie in the pod alone.
        if here or ("/" not in recipe and not storage.is_remote(recipe)):
            loaded = load_expansion_recipe(recipe)
            known = [*loaded.kinds, *BUILT_IN_KINDS]
            for name in split_names(settings.kinds):
                if name not in known:
                    yield f"kinds: found {name!r}; {meant(name, known)}"
            if not split_names(settings.kinds):
                yield f"kinds: empty; expected some of {', '.join(known)}"
            taught = [name for name in split_names(settings.kinds) if name not in BUILT_IN_KINDS]
            check_judge_recipe(loaded, judge_of(settings), taught)
            checks_of(settings).similarity.read(taught)
            Panel(loaded, (), blocked=frozenset(), off=set(split_names(settings.gates_off)))
        if here or not settings.prices:
            check(teacher, checks_of(settings))
    except UserError as error:
        yield str(error)
    if settings.teacher == "openai" and not settings.teacher_model:
        yield "teacher_model: empty; teacher openai needs the model's name as the endpoint knows it"
    elif settings.teacher == "offline" and (settings.teacher_model or settings.teacher_endpoint):
        yield (
            f"teacher: offline, but teacher_model {settings.teacher_model!r} and teacher_endpoint "
            f"{settings.teacher_endpoint!r} are for teacher openai; set teacher to openai, or leave them out"
        )
    if here:
        yield from _here(settings)


def _here(settings: Settings) -> Iterator[str]:
    hosted = settings.teacher == "openai"
    asks = hosted or judge_of(settings).asked
    needed = ["rensa", "py3langid", "tokenizers", *(["openai", "httpx2"] if asks else [])]
    if found := extras.fault("expand", "expansion", needed):
        yield found
    elif hosted and settings.teacher_model:
        try:
            teacher_settings(settings).open()
        except UserError as error:
            yield str(error)
    judge = judge_of(settings)
    if judge.asked and judge.images and not settings.images_uri:
        yield "images_uri: empty; judge_images shows the images themselves to the judge"
    if judge.asked and judge.model and not found:
        from llava.expansion.opinions.conduct import judging_settings

        try:
            judging_settings(judge, teacher_settings(settings)).open()
        except UserError as error:
            yield f"judge: {error}"
    if settings.clip_model:
        yield from places.model("clip_model", settings.clip_model)
        if not settings.images_uri:
            yield "images_uri: empty; clip_model compares rows with their images"
    annotations = places.parts(settings.annotations_uri)
    if not annotations:
        yield "annotations_uri: empty; expected a folder of COCO annotations, or image-caption lists (JSON, CSV, ...)"
    for uri in annotations:
        yield from places.exists("annotations_uri", uri, "" if len(annotations) == 1 else "file")
    yield from places.folders("images_uri", settings.images_uri)
    for field in ("blocklist_uri", "mixture", "prices"):
        for uri in places.parts(getattr(settings, field)):
            yield from places.exists(field, uri, "file")
    if settings.mixture and not [*places.exists("mixture", settings.mixture, "file")]:
        yield from _mixture(settings.mixture)


def _mixture(uri: str) -> Iterator[str]:
    from llava.expansion.rows.mixture import GENERATED, load_mixture

    try:
        for part in load_mixture(uri).parts:
            if not part.data.startswith(GENERATED):
                yield from places.exists(f"mixture {uri}: data", part.data)
    except UserError as error:
        yield str(error)
