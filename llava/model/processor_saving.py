"""A processor is saved with proof that what serves is what trained: it is reloaded, and must give the same ids.

A tokenizer can lose an option on its way through a folder (transformers 5.23 drops LlamaTokenizer's `legacy`, which
decides whether a word behind `</s>` or `<image>` begins with a space). Nothing fails then, and the model is served
other tokens than it was trained on. So the class of faults is caught and not the case: fixed conversations are compared
before and after.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import SettingsError
from llava.image_token import IMAGE_TOKEN

if TYPE_CHECKING:
    from transformers import ProcessorMixin

_PAIRS = (
    ("<image>\nWhat is shown?", "A red circle."),
    ("Where is it?\n<image>", "To the left.\nOf a square, at [0.12, 0.5]."),
    ("How  many, 3 or 4?", " Drei – 三角形, émoji 🙂\tand\n\nmore."),
)


def save_processor(processor: ProcessorMixin, folder: Path) -> None:
    """Write a processor into a folder, reload it from there with stock code, and compare.

    Raises:
        SettingsError: the reloaded one gives other token ids or pixels for the same conversation; the message shows
            where they part.
    """
    from transformers import AutoProcessor

    processor.save_pretrained(folder)
    _write_template(processor, folder)
    served = AutoProcessor.from_pretrained(folder)
    for text, images in _probes(processor):
        trained_ids, trained_pixels = _inputs(processor, text, images)
        served_ids, served_pixels = _inputs(served, text, images)
        if trained_ids != served_ids:
            raise SettingsError(_difference(processor.tokenizer, text, trained_ids, served_ids))
        if not _equal(trained_pixels, served_pixels):
            raise SettingsError(
                "model.vision_tower: its image processor, saved and reloaded, makes other pixels of the same image; "
                "a model saved like this would be served other inputs than it was trained on"
            )


def _write_template(processor: Any, folder: Path) -> None:
    """The chat template in `tokenizer_config.json` as well: transformers.js, and readers older than
    `chat_template.jinja`, look there and nowhere else."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["chat_template"] = processor.chat_template
    path.write_text(f"{json.dumps(settings, indent=2, ensure_ascii=False)}\n", encoding="utf-8")


def _probes(processor: Any) -> Iterator[tuple[str, list[Any]]]:
    """(text, its images): conversations in the processor's own template, and bare text around every special token."""
    from PIL import Image

    image = Image.linear_gradient("L").resize((60, 40)).convert("RGB")
    tokenizer = processor.tokenizer
    yield " two words, 12.5 and é三\n<0x0A> end", []
    yield f"before\n{processor.image_token}\nWhat is shown?", [image]
    # `<image>` stands for a picture that would be missing here.
    for token in sorted(set(tokenizer.all_special_tokens) - {processor.image_token}):
        yield f"before{token}after {token} again{token}\n{token}{token}", []
    for count in range(1, len(_PAIRS) + 1):
        messages = [message for pair in _PAIRS[:count] for message in _messages(*pair)]
        try:
            text = processor.apply_chat_template(messages, tokenize=False)
        except Exception:  # nosec B112  a template of the user's own may refuse such a conversation; then so does the reloaded one
            continue
        if isinstance(text, str):
            yield text, [image] * text.count(processor.image_token)


def _messages(question: str, answer: str) -> Iterator[dict[str, Any]]:
    before, image, after = question.partition(IMAGE_TOKEN)
    items = [{"type": "text", "text": before}, {"type": "image"} if image else None, {"type": "text", "text": after}]
    yield {"role": "user", "content": [item for item in items if item and item.get("text") != ""]}
    yield {"role": "assistant", "content": [{"type": "text", "text": answer}]}


def _inputs(processor: Any, text: str, images: list[Any]) -> tuple[list[int], Any]:
    if not images:
        return list(processor.tokenizer(text)["input_ids"]), None
    inputs = processor(text=text, images=images, return_tensors="np")
    return inputs["input_ids"][0].tolist(), inputs["pixel_values"]


def _equal(a: Any, b: Any) -> bool:
    import numpy as np

    return (a is None and b is None) or np.array_equal(a, b)


def _difference(tokenizer: Any, text: str, trained: list[int], served: list[int]) -> str:
    pairs = zip(trained, served, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(trained), len(served)))
    window = slice(max(0, at - 2), at + 4)
    shown = [" ".join(tokenizer.convert_ids_to_tokens(ids[window])) for ids in (trained, served)]
    return (
        "model.language_model: its tokenizer, saved and reloaded, gives other ids for the same text: trained "
        f"`{shown[0]}`, served `{shown[1]}` (token {at} of {text[:60]!r}); a model saved like this would be served "
        "other tokens than it was trained on. Use a tokenizer.json, or a release of transformers that keeps its options"
    )
