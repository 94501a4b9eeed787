"""A deterministic teacher that needs no network: it reads captions and boxes and asks what they answer.

It sees exactly what a hosted teacher sees, the messages, and replies in the same text form. Which form is wanted it
takes from the few-shot examples: question-answer blocks or a single answer; whether to reason about positions, from
whether the context has boxes. Answers to questions are as short as can be ("red", "two", "yes").
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

from llava.expansion.recipe.requests import Request
from llava.expansion.teachers import describe, questions
from llava.expansion.teachers.base import Reply, Usage
from llava.expansion.teachers.scene import read_scene

_SEPARATOR = "\n===\n"
_TURNS = 8
_REASONING_TURNS = 4


class OfflineTeacher:
    """Answers from the request's text alone; the same request always gets the same reply."""

    model = "offline-teacher-1"

    async def ask(self, request: Request) -> Reply:
        """Answer one request at once; usage is estimated at four characters a token and costs nothing."""
        body = request.text_body()  # it reads what is written about an image, whatever else is shown
        text = reply_to(body)
        read = sum(len(message["content"]) for message in body["messages"])
        return Reply(text, "stop", self.model, Usage(input=read // 4, output=len(text) // 4))

    async def renew(self) -> None:
        """It has no connections."""

    async def close(self) -> None:
        """Nothing to close."""


def reply_to(body: dict[str, Any]) -> str:
    """The reply to the body of a chat-completions request."""
    context = body["messages"][-1]["content"]
    rng = random.Random(hashlib.sha256(context.encode()).digest())
    scene = read_scene(context)
    examples = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
    if not any(_SEPARATOR in example for example in examples):
        return describe.describe(scene, rng)
    if scene.regions:
        pairs = questions.reasoning(scene, rng, _REASONING_TURNS)
    else:
        pairs = questions.conversation(scene, rng, _TURNS)
    return _SEPARATOR.join(f"Question:\n{question}{_SEPARATOR}Answer:\n{answer}" for question, answer in pairs)
