"""Refusal: the teacher declined, apologised or spoke about itself instead of answering."""

from __future__ import annotations

import re

from llava.expansion.gates.base import Sample

_REFUSAL = re.compile(
    r"\b(?:i(?:['’]m| am) (?:sorry|unable|not able|afraid|not (?:allowed|permitted|authori[sz]ed|comfortable|programmed"
    r"|designed|capable|in a position)|only a)|(?:i )?(?:apologi[sz]e|my apologies)|i regret"
    r"|(?:sorry|unfortunately|regrettably),? (?:but )?i(?:['’]m| am| can|['’]ve| won| do| have)"
    r"|i (?:can(?:no|['’])t|cannot|can not|won['’]t|will not|must not|may not|am not allowed to|do not|don['’]t"
    r"|(?:would|['’]d) (?:rather|prefer) not) (?:\w+ ){0,2}?"
    r"(?:assist|help|comply|provide|answer|fulfil?l|see (?:the|any|an|this)? ?(?:images?|pictures?|photos?)"
    r"|view|access|generate|create|describe|have (?:access|the ability|enough|sufficient)|identify"
    r"|complete|respond|engage"
    r"|process|speculate|discuss)"
    r"|i (?:\w+ ){0,3}(?:decline|refuse|refrain)\b"
    r"|as an? (?:ai|artificial intelligence|(?:large )?language model|text[- ]based|text[- ]only"
    r"|virtual assistant|chatbot)"
    r"|as a language model|(?:against|violates?|outside|beyond) (?:of )?(?:my|our|the|what i) (?:policy"
    r"|policies|guidelines"
    r"|programming|capabilities|scope|rules|terms|usage|am|can)|content policy|openai|chatgpt"
    r"|my (?:programming|guidelines|training|instructions|capabilities|policies|safety)"
    r"|(?:for|due to|because of|out of) (?:(?:privacy|safety|ethical|legal|policy|security) (?:reasons?"
    r"|concerns?|considerations?)|respect for (?:the |their )?privacy)"
    r"|(?:not|\w+n['’]t) (?:enough|sufficient) (?:information|context|detail|data)"
    r"|insufficient (?:information|context|data)"
    r"|(?:not|\w+n['’]t) (?:something|a question|a request) (?:that )?i (?:can|am able)"
    r"|(?:not|\w+n['’]t) possible (?:for me )?(?:to (?:provide|describe|answer|produce|give))"
    r"|(?:description|answer|response) is not possible"
    r"|unable to (?:view|see|process|provide|assist|help|determine from|access|answer|complete|describe|fulfil)"
    r"|(?:no|without an?) (?:image|picture|photo) (?:was|has been|is|were) (?:\w+ )?(?:provided|attached"
    r"|uploaded|shared|visible"
    r"|included|sent|found)|(?:don['’]t|do not|doesn['’]t|cannot|can['’]t) (?:\w+ ){0,2}(?:have|get|gain)? ?access to"
    r"|please (?:provide|upload|share|attach|send|describe|try|give) (?:it|me|the|an?|your|more|us|again|another)"
    r"|(?:can|could|would) you (?:please )?(?:provide|share|upload|attach|send|describe|clarify)\b)",
    re.IGNORECASE,
)
# What any refusal has at least one of; looking for these is many times quicker than the expression above.
_STEMS = (
    "sorry", "unable", "not able", "afraid", "apolog", "regret", "can't", "can’t", "cannot", "can not",
    "won't", "won’t",
    "don't", "don’t", "do not", "does not", "doesn't", "doesn’t", "declin", "refus", "refrain", "as a",
    "polic", "openai",
    "chatgpt", "my ", "privacy", "safety", "ethical", "legal", "security", "enough", "sufficient", "possible", "please",
    "you ", "access", "image", "picture", "photo", "unfortunate", "will not", "must not", "may not", "rather",
    "prefer", "not allowed", "not permitted", "not authori", "not comfort", "not program", "not design", "not capable",
    "not in a", "only a", "guideline", "programming", "rules", "terms", "capabilit", "scope", "against",
)  # fmt: skip


class RefusalGate:
    """Refusals and talk about being a model, anywhere in the reply."""

    name = "refusal"

    def check(self, sample: Sample) -> str:
        """The phrase found."""
        found = self.phrase(sample.answers or sample.reply)
        return f"{found!r}" if found else ""

    @staticmethod
    def phrase(text: str) -> str:
        """The first phrase of refusal in a text; empty when there is none."""
        lower = text.lower()
        found = _REFUSAL.search(text) if any(stem in lower for stem in _STEMS) else None
        return found.group() if found else ""
