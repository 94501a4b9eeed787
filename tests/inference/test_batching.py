"""The queue before the model: bounded, and nobody who is refused costs the others anything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llava.inference.batching import Batcher
from llava.inference.model import load, render
from llava.inference.protocol import Refused
from llava.model.generation import GenerationRequest, generate
from tests.hub_model import HubModel


def test_who_comes_when_the_queue_is_full_is_told_at_once(hub_model: HubModel) -> None:
    model = load(hub_model.model)
    message: Any = {"role": "user", "content": [{"type": "text", "text": "Where?"}]}
    request = GenerationRequest(render(model.processor, [message]), max_new_tokens=20)
    batcher = Batcher(model.model, model.processor, batch_size=1, waiting=2)

    async def one() -> str:
        return "".join([piece.text async for piece in batcher.answer(request)])

    async def all_of_them() -> list[str | BaseException]:
        return await asyncio.gather(*(one() for _ in range(12)), return_exceptions=True)

    results = asyncio.run(all_of_them())
    answers = [result for result in results if isinstance(result, str)]
    refused = [result for result in results if isinstance(result, Refused)]
    assert len(answers) + len(refused) == 12 and len(answers) >= 2
    assert refused and all(refusal.status == 429 for refusal in refused)
    [alone] = generate(model.model, model.processor, [request], max_new_tokens=20)
    assert {answer.strip() for answer in answers} == {alone}
    assert asyncio.run(one()).strip() == alone
    batcher.close()
    assert not batcher.alive


def test_a_model_that_fails_answers_its_batch_and_lives_on(hub_model: HubModel) -> None:
    model = load(hub_model.model)
    batcher = Batcher(model.model, model.processor, batch_size=2, waiting=2)
    image_wanted = GenerationRequest("<image> but none is given", max_new_tokens=4)
    fine = GenerationRequest("USER: Hi ASSISTANT:", max_new_tokens=4)

    async def one(request: GenerationRequest) -> list[Any]:
        return [piece async for piece in batcher.answer(request)]

    with pytest.raises(Refused, match="the model failed") as refused:
        asyncio.run(one(image_wanted))
    assert refused.value.status == 500
    assert asyncio.run(one(fine))[-1].tokens is not None
    batcher.close()
