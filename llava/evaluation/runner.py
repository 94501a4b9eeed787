"""Let a model answer a benchmark: in batches, with images read ahead, each batch on disk before the next."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from PIL import Image

from llava.data.images import ImageError
from llava.evaluation.benchmark import Question
from llava.evaluation.contenders import Contender, mean_colour
from llava.evaluation.predictions import PredictionLog
from llava.evaluation.question_images import Images, blank
from llava.model.generation import GenerationRequest, generate_batches
from llava.telemetry import Telemetry

BATCHES_A_CHUNK = 4  # a chunk is sorted by length, and its images are in memory together

Loaded = tuple[dict[str, Image.Image], dict[str, ImageError]]


def answer_all(
    contender: Contender,
    questions: Sequence[Question],
    images: Images,
    log: PredictionLog,
    *,
    batch_size: int,
    max_new_tokens: int,
    telemetry: Telemetry,
) -> dict[str, ImageError]:
    """Answer every question that has no answer in `log` yet.

    Returns:
        The questions that cannot be asked, because an image is missing or broken, by id.
    """
    open_questions = [question for question in questions if question.id not in log.answers]
    if len(open_questions) < len(questions):
        telemetry.note(f"{contender.title}: {len(questions) - len(open_questions)} answers found, resuming after them")
    size = batch_size * BATCHES_A_CHUNK
    chunks = [open_questions[start : start + size] for start in range(0, len(open_questions), size)]
    colour = mean_colour(contender.processor)
    failed: dict[str, ImageError] = {}
    done, what = len(questions) - len(open_questions), f"answers ({contender.title})"
    telemetry.progress(what, done, len(questions))
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
                    failed[question.id] = broken
                else:
                    asked.append(question)
            done += len(chunk) - len(asked)
            if contender.blind:
                found = {reference: blank(image, colour) for reference, image in found.items()}
            requests = [
                GenerationRequest(prompt_of(contender.processor, question), [found[ref] for ref in question.images])
                for question in asked
            ]
            for batch in generate_batches(
                contender.model, contender.processor, requests, batch_size=batch_size, max_new_tokens=max_new_tokens
            ):
                log.add({asked[index].id: answer for index, answer in batch.items()})
                done += len(batch)
                telemetry.progress(what, done, len(questions))
                telemetry.count("evaluate_answers", len(batch))
    return failed


def prompt_of(processor: Any, question: Question) -> str:
    """The question in the words of the model's own chat template, images first."""
    content: list[dict[str, str]] = [{"type": "image"} for _ in question.images]
    content.append({"type": "text", "text": question.text})
    return str(
        processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
    )


def _load(images: Images, questions: Sequence[Question]) -> Loaded:
    return images.load_all([reference for question in questions for reference in question.images])
