"""Chatter: an assistant that talks to whoever gave it the task, instead of about the image."""

from __future__ import annotations

import re

from llava.expansion.gates.base import Sample

_CHATTER = re.compile(
    r"\b(?:let me know|feel free to|(?:hope|trust) (?:this|that|it) (?:helps|is helpful|answers|is what)"
    r"|(?:happy|glad) to (?:help|assist|provide|adjust|add|describe|elaborate|answer|expand)"
    r"|(?:great|good|excellent|interesting) question|is there anything else|anything else (?:i|you)"
    r"|as (?:you )?(?:requested|instructed|asked|specified)|(?:you|was) (?:asked|requested|instructed) (?:for|to)"
    r"|(?:requested|required|desired|specified|given|expected) (?:format|style|form|structure)"
    r"|(?:follow(?:s|ing)?|per|in line with|according to) (?:the|your) (?:examples?|instructions?"
    r"|guidelines|format|prompt"
    r"|rules|template)"
    r"|as (?:if|though) (?:i|one) (?:were|was|am|is) (?:looking|seeing|viewing)"
    r"|i(?:['’]ve| have|['’]ll| will|['’]d| would| can) (?:now |also |just )?(?:written|described|generated|created"
    r"|provided|prepared|composed|kept|tried|avoided|included|made sure|write|describe|generate|create"
    r"|provide|keep|revise"
    r"|rewrite|expand)\b"
    r"|(?:would|do|did) you (?:like|want|prefer|need|wish)(?: (?:me|another|more|a|any|to (?:know"
    r"|see)))? ?(?:to|version"
    r"|description|details?|me)?\b(?=[^?]*\?)"
    r"|here(?:['’]s| is| are) (?:a|an|the|your|my|another|some) (?:\w+ ){0,2}(?:description|answer"
    r"|paragraph|conversation"
    r"|dialogue|reply|response|questions?|summary|version)"
    r"|(?:below|above|following) is (?:a|an|the|your) (?:\w+ ){0,2}(?:description|answer|paragraph|reply|response)"
    r"|(?:paragraph|description|answer|reply|response) (?:you (?:asked|wanted|requested)|below|above)"
    r"|\(?\bnote:|\bp\.?s\.?:|(?:thank you|thanks) for (?:sharing|providing|the|your|asking)"
    r"|end of (?:description|answer|conversation|dialogue|reply))",
    re.IGNORECASE,
)
# To agree with the one who asked is natural in a dialogue; in a single answer there is nobody to agree with.
_GREETING = re.compile(
    r"\A\s*(?:sure|certainly|of course|absolutely|okay|ok|alright|understood|got it)\b\s*[!,.:]", re.I
)
# What any remark has at least one of; looking for these is many times quicker than the expression above.
_STEMS = (
    "let me", "feel free", "hope ", "trust ", "happy to", "glad to", "question", "anything else", "request", "instruct",
    "asked", "specifi", "format", "style", "form", "structure", "example", "guideline", "prompt", "rules", "template",
    "as if", "as though", "i've", "i’ve", "i have", "i will", "i'll", "i’ll", "i would", "i'd", "i’d", "i can", "you ",
    "description", "answer", "paragraph", "conversation", "dialogue", "reply", "response", "summary",
    "version", "note:",
    "p.s", "ps:", "ps.", "thank",
)  # fmt: skip


class ChatterGate:
    """Offers of help, remarks on the task, greetings in front of a description."""

    name = "chatter"

    def check(self, sample: Sample) -> str:
        """The remark found."""
        answers = sample.answers
        lower = answers.lower()
        found = _CHATTER.search(answers) if any(stem in lower for stem in _STEMS) else None
        if not found and sample.kind.grammar.form == "answer":
            found = _GREETING.search(answers)
        return f"{found.group().strip()!r}" if found else ""
