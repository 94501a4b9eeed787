"""Answers in batches, greedy unless a request asks for sampling: the same tokens as one at a time, only sooner.

Prompts are padded on the left, positions count real tokens only, and the key/value cache is on (the model's own flag is
off, because it is trained with packs). Requests of like length share a batch; rows that have ended
leave it, several at once, and the cache is written in place instead of being copied at every token. Images go
through the processor saved with the model, as an inference engine would do it.

Shapes: B rows, T prompt tokens, S tokens so far, D text width, V vocabulary, I images (tiles for LLaVA-NeXT).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from PIL import Image

from llava.model.answer_cache import roomy
from llava.model.features import image_features, tiles_of
from llava.model.sampling import Drawing, Sampling
from llava.model.stopping import Unfolding, end_tokens, turn_end

COMPACT_BELOW = 0.75  # ended rows leave the batch when this share of it is still being answered

Stream = Callable[[int, str], None]


class Ended(Protocol):
    """Is told that an answer has ended: its request's index, its length in tokens, and whether it was cut."""

    def __call__(self, index: int, tokens: int, *, cut: bool) -> None: ...


__all__ = ["Ended", "GenerationRequest", "Sampling", "generate", "generate_batches", "turn_end"]


@dataclass(frozen=True)
class GenerationRequest:
    """A prompt that ends where the answer starts, with one `<image>` for each of `images`, in their order.

    Attributes:
        max_new_tokens: where this answer is cut, if earlier than the call's.
        stop: texts that end this answer, beside the call's.
        sampling: how its tokens are drawn; None: greedily.
    """

    prompt: str
    images: Sequence[Image.Image] = ()
    max_new_tokens: int | None = None
    stop: Sequence[str] = ()
    sampling: Sampling | None = None


@dataclass
class _Row:
    """One request being answered."""

    index: int
    text: Unfolding
    longest: int
    drawing: Drawing | None
    tokens: list[int] = field(default_factory=list)
    ended: bool = False


def generate(
    model: Any,
    processor: Any,
    requests: Sequence[GenerationRequest],
    *,
    batch_size: int = 16,
    max_new_tokens: int = 128,
    stop: Sequence[str] | None = None,
    stream: Stream | None = None,
    ended: Ended | None = None,
) -> list[str]:
    """Answer requests.

    Args:
        model: a LLaVA or LLaVA-NeXT, in memory or just loaded; its mode is put back afterwards.
        processor: the one saved with it.
        requests: prompts and their images.
        batch_size: requests per forward pass.
        max_new_tokens: where an answer is cut.
        stop: texts that end an answer; default: what the processor's chat template writes behind one.
        stream: called with (index of the request, new text) as text becomes certain.
        ended: called when an answer has ended.

    Returns:
        The answers in the order of the requests, stripped, without the end.

    Raises:
        ValueError: a prompt has another number of `<image>` than its request has images.
    """
    answers = [""] * len(requests)
    batches = generate_batches(
        model,
        processor,
        requests,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        stop=stop,
        stream=stream,
        ended=ended,
    )
    for batch in batches:
        for index, answer in batch.items():
            answers[index] = answer
    return answers


def generate_batches(
    model: Any,
    processor: Any,
    requests: Sequence[GenerationRequest],
    *,
    batch_size: int = 16,
    max_new_tokens: int = 128,
    stop: Sequence[str] | None = None,
    stream: Stream | None = None,
    ended: Ended | None = None,
) -> Iterator[dict[int, str]]:
    """As `generate`, but yields each batch's answers, by index of the request, as soon as it is done."""
    for index, request in enumerate(requests):
        if request.prompt.count(processor.image_token) != len(request.images):
            raise ValueError(
                f"request {index}: {request.prompt.count(processor.image_token)} {processor.image_token} in the prompt "
                f"for {len(request.images)} images"
            )
    stop = [text for text in (turn_end(processor),) if text] if stop is None else list(stop)
    lengths = [len(processor.tokenizer(request.prompt).input_ids) for request in requests]
    order = sorted(range(len(requests)), key=lambda index: (len(requests[index].images), lengths[index]))
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            yield _answer(model, processor, {i: requests[i] for i in chosen}, max_new_tokens, stop, stream, ended)
    finally:
        model.train(was_training)


@torch.no_grad()
def _answer(
    model: Any,
    processor: Any,
    requests: dict[int, GenerationRequest],
    max_new_tokens: int,
    stop: Sequence[str],
    stream: Stream | None,
    ended: Ended | None,
) -> dict[int, str]:
    from transformers import DynamicCache

    device = model.get_input_embeddings().weight.device
    embeddings_BTD, mask_BS = _prompts(model, processor, list(requests.values()))
    position_BT = (mask_BS.cumsum(1) - 1).clamp(min=0)
    ends = end_tokens(model, processor)
    rows = [
        _Row(
            index,
            Unfolding(processor.tokenizer, [*stop, *request.stop]),
            min(max_new_tokens, request.max_new_tokens or max_new_tokens),
            Drawing(request.sampling) if request.sampling else None,
        )
        for index, request in requests.items()
    ]
    answers: dict[int, str] = {}
    cache = DynamicCache(config=model.model.language_model.config)
    roomy(cache, embeddings_BTD.shape[1] + max_new_tokens)
    stops = any(stop) or any(request.stop for request in requests.values())
    unread = stream is None and not stops  # nothing depends on the text before an answer is whole
    inputs: dict[str, Any] = {"inputs_embeds": embeddings_BTD}
    for step in range(max_new_tokens):
        hidden_BTD = model.model.language_model(
            **inputs, attention_mask=mask_BS, position_ids=position_BT, past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits_BV = model.lm_head(hidden_BTD[:, -1])
        chosen = logits_BV.argmax(-1).tolist()
        going = 0
        for number, (row, token) in enumerate(zip(rows, chosen, strict=True)):
            if row.ended:  # it stays a while, because to take it out copies the cache of all others
                continue
            if row.drawing is not None:
                token = row.drawing.next(logits_BV[number])
            whole = token in ends
            if not whole:
                row.tokens.append(token)
            last = whole or step == row.longest - 1
            piece = "" if unread and not last else row.text.extend(row.tokens, last=last)
            if stream is not None and piece:
                stream(row.index, piece)
            if last or row.text.stopped:
                answers[row.index] = row.text.shown.strip()
                row.ended = True
                if ended is not None:
                    ended(row.index, len(row.tokens), cut=not whole and not row.text.stopped)
            else:
                going += 1
        if not going:
            break
        if going <= len(rows) * COMPACT_BELOW:
            going_rows = [k for k, row in enumerate(rows) if not row.ended]
            keep = torch.tensor(going_rows, device=device)
            cache.batch_select_indices(keep)
            mask_BS, position_BT = mask_BS[keep], position_BT[keep]
            rows = [rows[k] for k in going_rows]
        inputs = {"input_ids": torch.tensor([[row.tokens[-1] if row.tokens else 0] for row in rows], device=device)}
        mask_BS = torch.cat([mask_BS, mask_BS.new_ones(len(rows), 1)], dim=1)
        position_BT = position_BT[:, -1:] + 1
    return answers


def _prompts(model: Any, processor: Any, requests: Sequence[GenerationRequest]) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (B, T, D) of the prompts padded on the left, images merged, and their mask (B, T)."""
    table = model.get_input_embeddings()
    device = table.weight.device
    images = [image for request in requests for image in request.images]
    unique = list({id(image): image for image in images}.values())  # one image is often asked about many times
    place = {id(image): k for k, image in enumerate(unique)}
    encoded = processor.image_processor(unique, return_tensors="pt") if unique else {}
    ids = _token_ids(processor, requests, images)
    longest = max(len(row) for row in ids)
    pad = processor.tokenizer.pad_token_id or 0
    input_ids_BT = torch.tensor([[pad] * (longest - len(row)) + row for row in ids], device=device)
    mask_BT = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids], device=device)
    embeddings_BTD = table(input_ids_BT)
    if not unique:
        return embeddings_BTD, mask_BT
    pixels, sizes = encoded["pixel_values"], encoded.get("image_sizes")
    if pixels.dim() == 5:  # LLaVA-NeXT pads every image to as many tiles as the largest has
        tiles = [tiles_of(model.config, size) for size in encoded["image_sizes"].tolist()]
        pixels = torch.cat([image[:count] for image, count in zip(pixels, tiles, strict=True)])
    features = image_features(model, pixels.to(device), sizes)
    merged = torch.cat([features[place[id(image)]] for image in images]).to(embeddings_BTD.dtype)
    placeholder_BT = (input_ids_BT == model.config.image_token_index) & mask_BT.bool()
    if int(placeholder_BT.sum()) != len(merged):
        raise ValueError(f"{int(placeholder_BT.sum())} image placeholders for {len(merged)} visual tokens")
    return embeddings_BTD.masked_scatter(placeholder_BT[..., None], merged), mask_BT


def _token_ids(processor: Any, requests: Sequence[GenerationRequest], images: Sequence[Image.Image]) -> list[list[int]]:
    """Ids of each prompt with its placeholders expanded, exactly as `processor(text=..., images=...)` has them."""
    sizes = [[image.height, image.width] for image in images]
    counts = iter(processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"] if sizes else [])
    token = processor.image_token
    texts = []
    for request in requests:
        first, *rest = request.prompt.split(token)
        texts.append(first + "".join(token * next(counts) + piece for piece in rest))
    return [list(row) for row in processor.tokenizer(texts).input_ids]
