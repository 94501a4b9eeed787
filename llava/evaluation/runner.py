"""Let a model answer a benchmark, with images read ahead, each batch on disk before the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from llava.data.images import ImageError
from llava.evaluation.benchmark import Question
from llava.evaluation.contenders import Contender
from llava.evaluation.engines.base import Asked, Refusal
from llava.evaluation.predictions import PredictionLog
from llava.evaluation.question_images import Images, blank

Loaded = tuple[dict[str, Image.Image], dict[str, ImageError]]


@dataclass(frozen=True)
class LeftOut:
    """Why a question has no answer: a short machine-readable class, and words."""

    problem: str
    why: str


class Listener(Protocol):
    """Who is told how far the work is; `Telemetry` is one."""

    def note(self, text: str) -> None:
        """A line for people."""

    def progress(self, what: str, done: float, total: float | None) -> None:
        """How much of `what` is done."""

    def count(self, name: str, n: float = 1) -> None:
        """Add to a counter."""


def answer_all(
    contender: Contender,
    questions: Sequence[Question],
    images: Images,
    log: PredictionLog,
    *,
    max_new_tokens: int,
    listener: Listener,
    what: str,
) -> dict[str, LeftOut]:
    """Answer every question that has no answer in `log` yet.

    Args:
        contender: who answers.
        questions: what is asked.
        images: where their images are.
        log: what is answered already; takes the rest.
        max_new_tokens: longest answer.
        listener: told of progress.
        what: names the work for it.

    Returns:
        The questions that were not answered, because an image is missing or broken or the engine refuses, by id.
    """
    open_questions = [question for question in questions if question.id not in log.answers]
    if len(open_questions) < len(questions):
        listener.note(f"{contender.title}: {len(questions) - len(open_questions)} answers found, resuming after them")
    engine, size = contender.engine, contender.engine.chunk
    chunks = [open_questions[start : start + size] for start in range(0, len(open_questions), size)]
    left_out: dict[str, LeftOut] = {}
    done = len(questions) - len(open_questions)
    listener.progress(what, done, len(questions))
    with ThreadPoolExecutor(1) as ahead:
        coming: Future[Loaded] | None = None
        for number, chunk in enumerate(chunks):
            found, errors = (coming or ahead.submit(_load, images, chunk)).result()
            if number + 1 < len(chunks):
                coming = ahead.submit(_load, images, chunks[number + 1])
            asked = []
            for question in chunk:
                broken = next((errors[reference] for reference in question.images if reference in errors), None)
                if broken is not None:
                    left_out[question.id] = LeftOut(broken.problem, str(broken))
                else:
                    asked.append(question)
            done += len(chunk) - len(asked)
            if contender.blind:
                found = {reference: blank(image, engine.blank_colour) for reference, image in found.items()}
            requests = [Asked(question.text, [found[ref] for ref in question.images]) for question in asked]
            for batch in engine.answers(requests, max_new_tokens):
                left_out |= _kept(asked, batch, log)
                done += len(batch)
                listener.progress(what, done, len(questions))
                listener.count("evaluate_answers", len(batch))
    return left_out


def _kept(asked: Sequence[Question], batch: Mapping[int, str | Refusal], log: PredictionLog) -> dict[str, LeftOut]:
    log.add({asked[k].id: answer for k, answer in batch.items() if isinstance(answer, str)})
    return {
        asked[k].id: LeftOut("refused", answer.reason) for k, answer in batch.items() if isinstance(answer, Refusal)
    }


def _load(images: Images, questions: Sequence[Question]) -> Loaded:
    return images.load_all([reference for question in questions for reference in question.images])
