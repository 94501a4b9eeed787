"""What makes a reply unusable at once, so that it is worth asking again; and what the gates say of one reply alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llava.expansion.gates.base import Sample
from llava.expansion.gates.panel import Panel
from llava.expansion.gates.refusal import RefusalGate
from llava.expansion.recipe.grammar import GrammarError
from llava.expansion.recipe.kinds import ExpansionRecipe
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.base import Reply

_WITH_MEMORY = ("duplicates", "balance")  # a reply judged out of turn must not change what they have seen


def form_check(recipe: ExpansionRecipe) -> Callable[[str, Reply], str]:
    """The check of (kind, reply): why it is cut off, of the wrong form or a refusal; empty for a usable one."""
    refusal = RefusalGate()

    def unusable(kind: str, reply: Reply) -> str:
        if reply.finish_reason == "content_filter":
            return "teacher: content_filter"
        if reply.finish_reason != "stop":
            return f"truncation: finish_reason is {reply.finish_reason!r}"
        try:
            recipe.kind(kind).grammar.parse(reply.text)
        except GrammarError as error:
            return f"grammar: {error}"
        refused = refusal.phrase(reply.text)
        return f"refusal: {refused!r}" if refused else ""

    return unusable


def gate_check(recipe: ExpansionRecipe, categories: Sequence[str], off: set[str]) -> Callable[[Request, Reply], str]:
    """The check of (request, usable reply): which gate would drop its row, as `gate: reason`; empty for none."""
    panel = Panel(recipe, categories, blocked=frozenset(), off={*off, *_WITH_MEMORY})

    def judged(request: Request, reply: Reply) -> str:
        kind = recipe.kind(request.kind)
        sample = Sample(kind, request.image, reply.text, reply.finish_reason, kind.grammar.parse(reply.text))
        return next((f"{one.gate}: {one.reason}" for one in panel.judge(sample) if one.hard), "")

    return judged
