"""What is to be expanded, resolved once: recipe, kinds, images, teacher's name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llava.data.image_error import ImageError
from llava.data.images import ImageSource
from llava.errors import DataError, RowError, SettingsError
from llava.expansion.gates.blocklist import BlocklistGate, read_blocklist
from llava.expansion.recipe.attaching import Attacher, ImageForm
from llava.expansion.recipe.kinds import BUILT_IN_KINDS, ExpansionRecipe, KindRecipe, load_expansion_recipe
from llava.expansion.recipe.lacking import what_lacks
from llava.expansion.recipe.requests import Request, all_requests
from llava.expansion.sources.corpus import AnnotatedImage, Corpus
from llava.expansion.sources.image_files import ImageFacts, look_at
from llava.expansion.sources.opening import open_corpus


@dataclass(frozen=True)
class Job:
    """Attributes:
    kinds: all kinds asked for, built-in ones included, in the order given.
    taught: the kinds a teacher writes.
    model: the teacher's name, part of every request's id.
    blocked: numeric ids of images that must give no row.
    extra_body: fields of every request's body that override the recipe's.
    attacher: of the images, where a kind shows them to the teacher.
    warnings: what the annotations lack for what was asked, for log, report and card.
    """

    recipe: ExpansionRecipe
    kinds: tuple[str, ...]
    taught: tuple[KindRecipe, ...]
    corpus: Corpus
    model: str
    seed: int
    blocked: frozenset[int]
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    attacher: Attacher | None = None
    warnings: tuple[str, ...] = ()

    @property
    def seeing(self) -> list[KindRecipe]:
        """The kinds whose teacher gets the image itself."""
        return [kind for kind in self.taught if kind.context.sees]

    def images(self) -> Iterator[AnnotatedImage]:
        """All images but the blocked ones: nothing is paid for those."""
        if not self.blocked:
            return iter(self.corpus)
        gate = BlocklistGate(self.blocked)
        return (image for image in self.corpus if not gate.reason(image.image_id))

    def requests(self, kinds: Sequence[KindRecipe] | None = None) -> Iterator[Request]:
        """Every request, kind after kind; the same in every run."""
        for kind in self.taught if kinds is None else kinds:
            yield from all_requests([kind], self.model, self.images(), self.seed, self.extra_body, self.attacher)


def open_job(
    *,
    annotations_uri: str,
    split: str,
    image_prefix: str,
    kinds: str,
    expansion_recipe: str,
    model: str,
    limit: int,
    seed: int,
    blocklist_uri: str,
    max_bad_rows: float,
    extra_body: Mapping[str, Any] | None = None,
    images_uri: str = "",
    image_form: ImageForm | None = None,
    judge_sees: bool = False,
) -> Job:
    """Read recipe, block-list and annotations, and where somebody is shown the images, look at each of them.

    Args:
        judge_sees: a judge is shown every image, whatever the teacher is.

    Raises:
        SettingsError: an unknown kind or recipe, two kinds that send the same requests, or images without a root.
        DataError: annotations that cannot be used, or too many broken rows or images in them.
    """
    recipe = load_expansion_recipe(expansion_recipe)
    names = split_names(kinds)
    if not names:
        offered = ", ".join([*recipe.kinds, *BUILT_IN_KINDS])
        raise SettingsError(f"kinds: empty; expected some of {offered}")
    taught = tuple(recipe.kind(name) for name in names if name not in BUILT_IN_KINDS)
    _refuse_twins(taught, extra_body or {})
    blocked = read_blocklist(blocklist_uri) if blocklist_uri else frozenset()
    corpus = open_corpus(annotations_uri, split=split, image_prefix=image_prefix, limit=limit, images_uri=images_uri)
    bad = len(corpus.problems)
    if bad > max_bad_rows * max(corpus.rows_read, 1):
        raise DataError(
            f"annotations: {bad} of {corpus.rows_read} rows cannot be used, more than max_bad_rows ({max_bad_rows:g}); "
            f"the first: {corpus.problems[0]}"
        )
    lacking = what_lacks(corpus, taught, names)
    job = Job(recipe, tuple(names), taught, corpus, model, seed, blocked, extra_body or {}, warnings=lacking)
    if not job.seeing and not judge_sees:
        return job
    if not images_uri:
        kinds_shown = ", ".join(kind.name for kind in job.seeing)
        shown = f"the teacher for {kinds_shown}" if job.seeing else "the judge"
        raise SettingsError(f"images_uri: empty; the images themselves are shown to {shown}")
    return replace(job, attacher=_attacher(job, images_uri, image_form or ImageForm(), max_bad_rows))


def _attacher(job: Job, images_uri: str, form: ImageForm, max_bad_rows: float) -> Attacher:
    source = ImageSource(images_uri)
    facts: dict[str, ImageFacts] = {}
    bad: list[ImageError] = []
    for path, found in look_at(source, (image.path for image in job.images())):
        if isinstance(found, ImageError):
            bad.append(found)
        else:
            facts[path] = found
    if len(bad) > max_bad_rows * (len(bad) + len(facts)):
        raise DataError(
            f"images_uri: {len(bad)} of {len(bad) + len(facts)} images cannot be used, more than max_bad_rows "
            f"({max_bad_rows:g}); the first: {bad[0]}"
        )
    for position, error in enumerate(bad):
        problem = RowError(images_uri, position, "image", error.ref, error.expected, problem=error.problem)
        job.corpus.problems.append(problem)
    return Attacher(source, facts, form)


def _refuse_twins(taught: Sequence[KindRecipe], extra_body: Mapping[str, Any]) -> None:
    sent: dict[str, str] = {}
    for kind in taught:
        fields, _, _ = kind.sampling.fields(extra_body)
        body = json.dumps([kind.prefix(), kind.context.model_dump(), fields], sort_keys=True)
        if body in sent:
            raise SettingsError(
                f"kinds: {sent[body]!r} and {kind.name!r} send the same requests, so that one reply would be paid for "
                "twice; change what one of them asks, or leave it out"
            )
        sent[body] = kind.name


def split_names(text: str) -> list[str]:
    """Comma-separated names, without blanks and repetitions."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
