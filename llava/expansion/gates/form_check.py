"""What makes a reply unusable at once, so that it is worth asking again."""

from __future__ import annotations

from collections.abc import Callable

from llava.expansion.gates.refusal import RefusalGate
from llava.expansion.recipe.grammar import GrammarError
from llava.expansion.recipe.kinds import ExpansionRecipe
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.base import Reply


def form_check(recipe: ExpansionRecipe) -> Callable[[Request, Reply], str]:
    """The check: why a reply is cut off, of the wrong form or a refusal; an empty text for a usable one."""
    refusal = RefusalGate()

    def unusable(request: Request, reply: Reply) -> str:
        if reply.finish_reason != "stop":
            return f"truncation: finish_reason is {reply.finish_reason!r}"
        try:
            recipe.kind(request.kind).grammar.parse(reply.text)
        except GrammarError as error:
            return f"grammar: {error}"
        refused = refusal.phrase(reply.text)
        return f"refusal: {refused!r}" if refused else ""

    return unusable
