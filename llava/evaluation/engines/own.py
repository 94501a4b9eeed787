"""Our own generator: the model in this process, requests of like length in one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llava.evaluation.engines.base import Asked, Refusal
from llava.model.generation import GenerationRequest, generate_batches

BATCHES_A_CHUNK = 4  # a chunk is sorted by length, and its images are in memory together


class OwnEngine:
    """A loaded model with the processor saved beside it.

    Args:
        model: on its device, in its dtype.
        processor: with the chat template.
        batch_size: requests a forward pass.
    """

    batched = True

    def __init__(self, model: Any, processor: Any, batch_size: int) -> None:
        self.model, self.processor, self._batch_size = model, processor, batch_size
        dtype = str(model.dtype).removeprefix("torch.")
        self.title = f"own generator, {dtype}, batch {batch_size}"
        self.identity = f"own {dtype}"  # not the batch: in float32 it decides nothing
        self.chunk = batch_size * BATCHES_A_CHUNK
        self.blank_colour = mean_colour(processor)

    def answers(self, requests: Sequence[Asked], max_new_tokens: int) -> Iterator[dict[int, str | Refusal]]:
        """As `Engine.answers`."""
        prompts = [
            GenerationRequest(prompt_of(self.processor, request.text, len(request.images)), request.images)
            for request in requests
        ]
        for batch in generate_batches(
            self.model, self.processor, prompts, batch_size=self._batch_size, max_new_tokens=max_new_tokens
        ):
            yield dict(batch)


def prompt_of(processor: Any, text: str, images: int) -> str:
    """The question in the words of the model's own chat template, images first."""
    content: list[dict[str, str]] = [{"type": "image"} for _ in range(images)]
    content.append({"type": "text", "text": text})
    return str(
        processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
    )


def mean_colour(processor: Any) -> tuple[int, int, int]:
    """The colour that is zero after normalisation, as the tower sees it."""
    red, green, blue = (round(255 * float(value)) for value in processor.image_processor.image_mean)
    return red, green, blue
