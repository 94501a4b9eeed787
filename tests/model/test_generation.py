"""Batched answers equal answers one by one, token for token, and equal the stock class's own generate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

SENTENCES = (
    "What color is the circle?",
    "Where is it",
    "How many shapes are there in this picture, and which of them is the largest one?",
    "a",
    "Is there a red square? Answer the question using a single word or phrase.",
)
QUESTION = "{% for m in messages %}{% if m['role'] == 'user' %}USER: {% for c in m['content'] %}"
ITEM = "{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %} ASSISTANT:"
ANSWER = "{% else %} {{ m['content'][0]['text'] }}END{% endif %}{% endfor %}"


def pictures(sizes: list[tuple[int, int]]) -> list[Image.Image]:
    return [Image.effect_noise(size, 60 + 10 * k).convert("RGB") for k, size in enumerate(sizes)]


def requests_of(images: list[Image.Image]) -> list[Any]:
    from llava.model.generation import GenerationRequest

    made = [
        GenerationRequest(f"USER: <image>\n{text} ASSISTANT:", [images[k % len(images)]])
        for k, text in enumerate(SENTENCES)
    ]
    made.append(GenerationRequest("USER: How many shapes? ASSISTANT:"))
    made.append(GenerationRequest("USER: <image>\n<image>\nWhich is larger? ASSISTANT:", images[:2]))
    return made


@pytest.mark.parametrize(
    ("family", "fields", "sizes"),
    [
        ("llama", {}, [(48, 48), (80, 40), (30, 60)]),
        ("mistral", {"projector": "linear"}, [(48, 48), (80, 40)]),  # a sliding window shorter than the prompts
        ("qwen2", {"vision_feature_select_strategy": "full"}, [(48, 48), (80, 40)]),
        ("llama", {"architecture": "llava_next"}, [(48, 48), (200, 60), (30, 120)]),
    ],
)
def test_batched_equals_one_by_one_and_the_stock_generate(
    built: Callable[..., tuple[Any, Any]], family: str, fields: dict[str, Any], sizes: list[tuple[int, int]]
) -> None:
    import torch

    from llava.model.generation import generate

    model, processor = built(family, **fields)
    with torch.no_grad():  # a freshly drawn model says the same whatever it sees
        for name, parameter in model.model.language_model.layers.named_parameters():
            parameter.mul_(8 if "proj" in name else 1)
    model.generation_config.eos_token_id = 300  # an ordinary piece, so that rows end at different times
    requests = requests_of(pictures(sizes))
    kinds: dict[str, Any] = {"max_new_tokens": 12, "stop": []}
    together = generate(model, processor, requests, batch_size=16, **kinds)
    assert together == generate(model, processor, requests, batch_size=1, **kinds)
    assert together == generate(model, processor, requests, batch_size=3, **kinds)
    assert len(set(together)) > 2
    model.config.text_config.use_cache = True
    for request, answer in zip(requests, together, strict=True):
        inputs = processor(text=request.prompt, images=list(request.images) or None, return_tensors="pt")
        with torch.no_grad():
            out = model.generate(**inputs, do_sample=False, max_new_tokens=12, use_cache=True)
        new = out[0, inputs["input_ids"].shape[1] :]
        # Ours ends at the tokenizer's own end token too, which stock generate was not told of here.
        ended = (new == 300) | (new == processor.tokenizer.eos_token_id)
        new = new[: ended.nonzero()[0, 0]] if bool(ended.any()) else new
        assert processor.tokenizer.decode(new, skip_special_tokens=True).strip() == answer


def test_a_stream_shows_every_answer_piece_by_piece(built: Callable[..., tuple[Any, Any]]) -> None:
    from llava.model.generation import generate

    model, processor = built()
    requests = requests_of(pictures([(48, 48), (80, 40)]))
    pieces: dict[int, list[str]] = {}
    answers = generate(
        model,
        processor,
        requests,
        batch_size=4,
        max_new_tokens=10,
        stop=[],
        stream=lambda index, text: pieces.setdefault(index, []).append(text),
    )
    assert ["".join(pieces[index]).strip() for index in range(len(requests))] == answers
    assert max(len(parts) for parts in pieces.values()) > 3


def test_training_mode_is_put_back_and_batches_come_as_they_are_done(built: Callable[..., tuple[Any, Any]]) -> None:
    from llava.model.generation import generate_batches

    model, processor = built()
    model.train()
    requests = requests_of(pictures([(48, 48)] * 2))
    batches = list(generate_batches(model, processor, requests, batch_size=3, max_new_tokens=2))
    assert model.training
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert sorted(index for batch in batches for index in batch) == list(range(len(requests)))


def test_a_prompt_without_its_image_is_refused(built: Callable[..., tuple[Any, Any]]) -> None:
    from llava.model.generation import GenerationRequest, generate

    model, processor = built()
    with pytest.raises(ValueError, match="request 1: 0 <image> in the prompt for 1 images"):
        generate(model, processor, [GenerationRequest("a"), GenerationRequest("a", pictures([(9, 9)]))])


@pytest.mark.parametrize(("end", "found"), [("END", "END"), ("###", "###"), ("\n", "\n"), (" </s>", None)])
def test_the_end_of_an_answer_is_read_off_the_chat_template(tiny_llama_dir: Path, end: str, found: str | None) -> None:
    from transformers import AutoTokenizer

    from llava.model.stopping import turn_end

    class Processor:
        tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
        chat_template = (QUESTION + ITEM + ANSWER).replace("END", end.replace("\n", "{{ '\\n' }}"))

        def apply_chat_template(self, messages: list[Any], tokenize: bool) -> str:
            return str(
                self.tokenizer.apply_chat_template(messages, chat_template=self.chat_template, tokenize=tokenize)
            )

    assert turn_end(Processor()) == found


def test_text_unfolds_without_half_characters_and_stops_before_the_stop(tiny_llama_dir: Path) -> None:
    from transformers import AutoTokenizer

    from llava.model.stopping import Unfolding

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    text = "naïve 東京 red###blue"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    unfolding, pieces = Unfolding(tokenizer, ["###"]), []
    for count in range(1, len(ids) + 1):
        pieces.append(unfolding.extend(ids[:count], last=False))
        if unfolding.stopped:
            break
    assert "".join(pieces) == unfolding.shown == "naïve 東京 red"
    assert len([piece for piece in pieces if piece]) > 4
    whole = Unfolding(tokenizer, [])
    assert whole.extend(ids, last=True) == text


def test_a_token_outside_the_tokenizer_is_no_text(built: Callable[..., tuple[Any, Any]]) -> None:
    """An embedding table is often larger than its tokenizer (padded to a multiple of 64): such an id may be chosen."""
    from llava.model.generation import generate

    model, processor = built("llama")
    size = len(processor.tokenizer)
    model.resize_token_embeddings(size + 61)
    with __import__("torch").no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[size + 7] = 1  # with its opposite one of the two is always the largest
        model.lm_head.weight[size + 8] = -1
    requests = requests_of(pictures([(48, 48)]))[:3]
    assert generate(model, processor, requests, max_new_tokens=4) == [""] * 3
