"""Every contender answers every benchmark: the part of an evaluation that takes time, in one process or one of many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llava.errors import DataError
from llava.evaluation.benchmark import Question
from llava.evaluation.contenders import Contender, Lineup, contenders
from llava.evaluation.predictions import PredictionLog, fingerprint, question_fingerprints
from llava.evaluation.question_images import Images
from llava.evaluation.runner import LeftOut, Listener, answer_all

WHOSE_LENGTH = 8


@dataclass(frozen=True)
class Work:
    """One benchmark to be answered.

    Attributes:
        key: names it in this run.
        benchmark: its name.
        uri: of its questions.
        questions: what is asked.
        images_uri: root of the images.
        folder: where predictions go.
        max_new_tokens: longest answer.
    """

    key: str
    benchmark: str
    uri: str
    questions: Sequence[Question]
    images_uri: str
    folder: str
    max_new_tokens: int


@dataclass(frozen=True)
class Answered:
    """That a contender has answered a benchmark, or its share: who it is, without the model itself.

    Attributes:
        work: key of the benchmark.
        name: of the contender.
        title: of the contender.
        uri: where it was loaded from.
        whose: short hash of model and engine.
        identity: what its fingerprints are made of.
        engine: the engine's title.
        batched: see `Engine`.
        blind: shown blank images.
        left_out: questions without an answer, by id.
    """

    work: str
    name: str
    title: str
    uri: str
    whose: str
    identity: tuple[str, str]
    engine: str
    batched: bool
    blind: bool
    left_out: Mapping[str, LeftOut]

    def log(self, work: Work, writer: str = "") -> PredictionLog:
        """Its answers on disk."""
        return _log(work, self.name, self.identity, self.whose, writer)


def answer_share(
    lineup: Lineup,
    works: Sequence[Work],
    listener: Listener,
    *,
    rank: int = 0,
    ranks: int = 1,
    each: Callable[[Answered, Work], Any] = lambda answered, work: None,
) -> list[Answered]:
    """Load each contender once and have it answer every `ranks`-th question of every benchmark.

    Args:
        lineup: who answers.
        works: what is asked.
        listener: told of progress.
        rank: this process's number; it takes the questions `rank`, `rank + ranks`, ...
        ranks: how many processes share the questions.
        each: called when a contender has answered a benchmark; what it raises ends the run.

    Raises:
        UserError: a contender cannot be loaded, or its engine is gone.
    """
    found = []
    for contender in contenders(lineup, rank):
        whose = fingerprint(contender.identity, contender.engine.identity)[:WHOSE_LENGTH]
        identity = (contender.identity, contender.engine.identity)
        for work in works:
            log = _log(work, contender.name, identity, whose, f"rank{rank}-" if ranks > 1 else "")
            listener.note(f"{work.key}: {contender.title} ({contender.engine.title})")
            left_out = answer_all(
                contender,
                work.questions[rank::ranks],
                Images(work.images_uri),
                log,
                max_new_tokens=work.max_new_tokens,
                listener=listener,
                what=f"answers ({work.key}, {contender.title})",
            )
            found.append(_answered(work, contender, whose, identity, left_out))
            each(found[-1], work)
        del contender
    return found


def check_left_out(work: Work, left_out: Mapping[str, LeftOut], max_bad_rows: float) -> None:
    """Above a threshold, missing answers are an error; no answer at all is one whatever the threshold.

    Raises:
        DataError: naming how many, and why the first.
    """
    if len(left_out) > max_bad_rows * len(work.questions) or (left_out and len(left_out) == len(work.questions)):
        key, first = next(iter(left_out.items()))
        broken = all(item.problem != "refused" for item in left_out.values())
        what = "have no usable image" if broken else "have no usable image or were refused"
        limit = f"more than max_bad_rows ({max_bad_rows:g})"
        if len(left_out) == len(work.questions):
            limit = "so nothing was answered and there is nothing to score"
        raise DataError(
            f"{work.uri}: {len(left_out)} of {len(work.questions)} questions {what}, {limit}; the first, {key}: "
            f"{first.why}"
        )


def _log(work: Work, name: str, identity: tuple[str, str], whose: str, writer: str) -> PredictionLog:
    decides = question_fingerprints(work.questions, *identity, work.benchmark, work.max_new_tokens)
    return PredictionLog(work.folder, name, decides, writer=writer, whose=whose)


def _answered(
    work: Work, contender: Contender, whose: str, identity: tuple[str, str], left_out: Mapping[str, LeftOut]
) -> Answered:
    engine = contender.engine
    return Answered(
        work.key, contender.name, contender.title, contender.uri, whose, identity,
        engine.title, engine.batched, contender.blind, left_out,
    )  # fmt: skip
