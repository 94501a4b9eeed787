"""The Python face of a trained model: `load` it, and ask.

from llava import load

model = load("runs/demo/model")
print(model.answer("cat.jpg", "What is it?"))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from llava import extras
from llava.errors import SettingsError

if TYPE_CHECKING:
    from PIL.Image import Image

    from llava.model.answering import Dtype

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | Image"
"""An image as people have it: a path or s3:// URI, a file's bytes, or one that Pillow has opened."""
Images: TypeAlias = "ImageLike | Sequence[ImageLike] | None"
"""One image, several in the order they are shown, or none."""


@dataclass(frozen=True)
class Model:
    """A trained model and the processor saved with it; made by `load`.

    Attributes:
        model: the stock transformers class, for whatever is not offered here.
        processor: its processor.
        uri: where it came from.
    """

    model: Any
    processor: Any
    uri: str

    def answer(
        self,
        image: Images,
        question: str,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        system: str = "",
        stream: Callable[[str], None] | None = None,
    ) -> str:
        """Answer one question.

        Args:
            image: one, several in the order they are shown, or None for a question about none.
            question: plain text.
            max_new_tokens: where the answer is cut.
            temperature: 0: the likeliest answer, the same each time.
            top_p: with a temperature, draw among the likeliest tokens of this probability.
            seed: with a temperature, the same seed gives the same answer.
            system: said before everything, for templates that have a place for it.
            stream: called with each new piece of text.

        Raises:
            UserError: an image cannot be read, or the question holds the image placeholder.
        """
        from llava.model.generation import GenerationRequest, Sampling, generate

        images = [load_image(one) for one in _listed(image)]
        sampling = Sampling(temperature, top_p, seed) if temperature else None
        request = GenerationRequest(self._prompt(question, len(images), system), images, sampling=sampling)
        show = None if stream is None else lambda _, piece: stream(piece)
        [answer] = generate(self.model, self.processor, [request], max_new_tokens=max_new_tokens, stream=show)
        return answer

    def answer_all(
        self, questions: Sequence[tuple[Images, str]], *, batch_size: int = 16, max_new_tokens: int = 256
    ) -> list[str]:
        """Answer many (image, question) pairs in batches, greedily, in their order.

        Raises:
            UserError: as `answer`.
        """
        from llava.model.generation import GenerationRequest, generate

        requests = []
        for image, question in questions:
            images = [load_image(one) for one in _listed(image)]
            requests.append(GenerationRequest(self._prompt(question, len(images), ""), images))
        return generate(self.model, self.processor, requests, batch_size=batch_size, max_new_tokens=max_new_tokens)

    def _prompt(self, question: str, images: int, system: str) -> str:
        refuse_placeholder(self.processor, question)
        refuse_placeholder(self.processor, system)
        content = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": question}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        return render(self.processor, messages)


def load(uri: str | os.PathLike[str], *, device: str = "auto", dtype: Dtype = "auto") -> Model:
    """Load a trained model.

    Args:
        uri: the directory stage 2 wrote (`runs/demo/model`), an s3:// URI, or the hub id of a LLaVA in transformers'
            form.
        device: `auto` (the first GPU, else the CPU), or as torch names it.
        dtype: `auto`: bfloat16 on a GPU, float32 on a CPU.

    Raises:
        SettingsError: libraries are missing, there is no LLaVA, or its processor has no chat template.
    """
    extras.require("llava.load", "train", ("torch", "transformers", "safetensors"))
    from llava.model.answering import load_answering

    return Model(*load_answering(os.fspath(uri), device, dtype), os.fspath(uri))


def load_image(image: ImageLike) -> Image:
    """RGB pixels of an image.

    Raises:
        UserError: missing, damaged, or too large.
    """
    from llava.data.decoding import decode
    from llava.data.images import ImageSource

    if isinstance(image, bytes):
        return decode(image, "bytes")
    if isinstance(image, str | os.PathLike):
        text = os.fspath(image)
        if "://" not in text and Path(text).is_dir():
            raise SettingsError(f"image: {text} is a folder; expected an image file")
        return ImageSource("", anywhere=True).load(text)
    return image.convert("RGB")


def render(processor: Any, messages: Sequence[dict[str, Any]]) -> str:
    """The prompt of a conversation, up to where the answer starts.

    Raises:
        SettingsError: the model's chat template does not take this conversation.
    """
    from jinja2 import TemplateError

    try:
        return str(processor.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False))
    except (TemplateError, TypeError, KeyError, ValueError) as error:
        raise SettingsError(f"messages: the model's chat template does not take them: {error}") from error


def refuse_placeholder(processor: Any, text: str) -> None:
    """See that a text does not say where an image goes.

    Raises:
        SettingsError: it does.
    """
    if processor.image_token in text:
        raise SettingsError(
            f"text: found {processor.image_token} in it; expected plain text; images are given beside it"
        )


def _listed(image: Images) -> list[ImageLike]:
    if image is None:
        return []
    if isinstance(image, list | tuple):
        return list(image)
    return [image]  # type: ignore[list-item]
